"""A rendezvous of a job's nodes before the launcher starts: all are there, or an error names those that are missing.

A launcher that waits for a missing node prints nothing for half an hour. Here node 0 listens at the address and port
that the launcher uses next, the others connect to it, and all continue together.
"""

import contextlib
import socket
import time
from collections.abc import Sequence

from cluster_jobs.core.errors import UserError

RETRY_SECONDS = 0.5


def rendezvous(number: int, names: Sequence[str], head: str, port: int, seconds: float) -> None:
    """Returns once every node is there.

    Args:
        number: of this node, from 0; node 0 is the head.
        names: of all nodes, by number.
        head, port: where the head listens.
        seconds: to wait at most.

    Raises:
        UserError: the message names the nodes that did not connect, or that the head cannot be reached.
    """
    deadline = time.monotonic() + seconds
    if number == 0:
        _await_nodes(names, port, deadline, seconds)
    else:
        _report_to_head(number, names, head, port, deadline, seconds)


def _await_nodes(names: Sequence[str], port: int, deadline: float, seconds: float) -> None:
    present: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("", port), backlog=len(names)))
        while len(present) < len(names) - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                connection = stack.enter_context(server.accept()[0])
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                text = connection.recv(16)
            except OSError:
                if time.monotonic() < deadline:
                    continue
                absent = [name for number, name in enumerate(names) if number and number not in present]
                raise UserError(
                    f"waited {seconds:.0f} s on {names[0]} (port {port}) for {', '.join(absent)}: expected all "
                    f"{len(names)} nodes of the job; is the node up, and the port open between nodes?"
                ) from None
            if text.isdigit() and 0 < int(text) < len(names):  # other programs may connect to the port
                present[int(text)] = connection
        for connection in present.values():
            connection.sendall(b"go")


def _report_to_head(number: int, names: Sequence[str], head: str, port: int, deadline: float, seconds: float) -> None:
    reason = "no answer"
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((head, port), timeout=max(deadline - time.monotonic(), 0.001)) as connection:
                connection.sendall(str(number).encode())
                if connection.recv(2) == b"go":
                    return
                reason = "the head gave up, another node is missing"
        except OSError as error:
            reason = str(error)
        time.sleep(RETRY_SECONDS)
    raise UserError(f"node {names[number]} waited {seconds:.0f} s for the head at {head}:{port} ({reason})")
