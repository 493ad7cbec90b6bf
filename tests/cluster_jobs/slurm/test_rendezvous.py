"""The nodes of a job meet over real sockets, or the one that is missing is named."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.slurm.rendezvous import rendezvous
from tests.processes import HANG_SECONDS, free_port

NAMES = ["n1", "n2", "n3"]


def test_all_nodes_go_on_once_the_last_one_is_there() -> None:
    port = free_port()

    def arrive(number: int) -> tuple[float, float]:
        time.sleep(0.3 * number)
        begin = time.monotonic()
        rendezvous(number, NAMES, "127.0.0.1", port, HANG_SECONDS)
        return begin, time.monotonic()

    with ThreadPoolExecutor() as pool:
        begins, ends = zip(*pool.map(arrive, range(3)), strict=True)
    assert min(ends) >= max(begins)


def test_the_head_names_the_node_that_did_not_come_and_the_others_do_not_go_on_without_it() -> None:
    port = free_port()
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(rendezvous, number, NAMES, "127.0.0.1", port, 1.5) for number in (0, 1)]
        with pytest.raises(UserError, match=r"waited 2 s on n1 \(port \d+\) for n3: expected all 3 nodes"):
            answers[0].result()
        with pytest.raises(UserError, match="node n2 waited 2 s for the head at 127.0.0.1"):
            answers[1].result()


def test_a_node_that_cannot_reach_the_head_says_so() -> None:
    with pytest.raises(UserError, match="node n3 waited 1 s for the head at 127.0.0.1:.*refused"):
        rendezvous(2, NAMES, "127.0.0.1", free_port(), 1.0)


def knock(port: int) -> socket.socket:
    """A connection to a head that may not listen yet."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_stranger_who_knocks_is_not_counted() -> None:
    port = free_port()
    with ThreadPoolExecutor() as pool:
        head = pool.submit(rendezvous, 0, NAMES[:2], "127.0.0.1", port, HANG_SECONDS)
        with knock(port) as stranger:
            stranger.sendall(b"GET / HTTP/1.0")
        time.sleep(0.2)
        assert not head.done()
        rendezvous(1, NAMES[:2], "127.0.0.1", port, HANG_SECONDS)
        head.result()
