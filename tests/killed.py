"""Any command (``module.main``), killed by its own hand in the middle of its work, however fast or slow the machine is.

``fork(log, "tests.killed", MODULE, *words, env={"KILL_AT": PATTERN})``: it dies just before it opens, renames into
place or removes a file whose path matches the pattern; ``KILL_COUNT=N``: before the N-th such moment.
"""

import importlib
import os
import signal
import sys
from fnmatch import fnmatchcase
from typing import Any

TARGET = {"open": 0, "os.rename": 1, "os.remove": 0}  # audit event → which of its arguments is the file


def main(words: list[str]) -> int:
    kill_at(os.environ["KILL_AT"], int(os.environ.get("KILL_COUNT", "1")))
    return importlib.import_module(words[0]).main(words[1:])


def kill_at(pattern: str, count: int) -> None:
    """Kills this process just before the ``count``-th event that concerns a matching file."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in TARGET and fnmatchcase(str(arguments[TARGET[event]]), pattern):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
