"""The probe of one node of an allocation, which prints one line of JSON; ``allocation.py`` starts it on every node.

Usage: ``python -m cluster_jobs.diagnostics.node_probe NONCE HOST PORT SHARED NAME...``: writes a file of the content
NONCE into SHARED (unless empty), resolves the names, and lets the clock server at HOST:PORT compare the clocks.
"""

import importlib.metadata
import json
import os
import platform
import socket
import sys
import time
from pathlib import Path
from typing import Any

from cluster_jobs.diagnostics.machine import resolve
from cluster_jobs.diagnostics.software import device_files
from cluster_jobs.diagnostics.storage import write_probe

COMPARED = ("torch", "numpy", "accelerate", "pillow")
CONNECT_SECONDS = 10


def node_name() -> str:
    """This node's name in the allocation."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def probe(nonce: str, host: str, port: int, shared: str, names: list[str]) -> dict[str, Any]:
    """The state of this node; errors as text, empty without an error."""
    return {
        "node": node_name(),
        "unresolved": [name for name in names if not resolve(name)],
        "shared": _write(Path(shared) / f"{nonce}.{node_name()}", nonce) if shared else "",
        "clock": _compare_clocks(nonce, host, port),
        "gpus": _gpus(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in COMPARED},
    }


def _write(path: Path, content: str) -> str:
    try:
        write_probe(path, content)
    except OSError as error:
        return f"{error.strerror}"
    return ""


def _compare_clocks(nonce: str, host: str, port: int) -> str:
    """Answers each line of the server with this node's time."""
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection.makefile("rw") as lines:
                print(nonce, node_name(), file=lines, flush=True)
                while lines.readline():
                    print(repr(time.time()), file=lines, flush=True)
    except OSError as error:
        return f"{error.strerror or error}"
    return ""


def _gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return device_files() if visible is None else min(device_files(), len([n for n in visible.split(",") if n]))


if __name__ == "__main__":
    nonce, host, port, shared, *names = sys.argv[1:]
    print(json.dumps(probe(nonce, host, int(port), shared, names)), flush=True)
