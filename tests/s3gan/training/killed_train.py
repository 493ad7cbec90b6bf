"""s3gan.train, killed where the environment says: ``KILL_AT_WRITE=N`` before the N-th change to the run directory,
``KILL_AT_BLOCK=N`` before the N-th block of an evaluation's samples. ``WRITES=FILE`` lists the changes instead.
"""

import os
import signal
import sys
from typing import Any

import s3gan.training.validation
from s3gan import train

make_images = s3gan.training.validation.make_images


def main(words: list[str]) -> int:
    directory = next(word for word in words if word.startswith("run.dir=")).removeprefix("run.dir=")
    watch_writes(directory, int(os.environ.get("KILL_AT_WRITE", "0")), os.environ.get("WRITES"))
    s3gan.training.validation.make_images = killing(int(os.environ.get("KILL_AT_BLOCK", "0")))
    return train.main(words)


def watch_writes(directory: str, fatal: int, listing: str | None) -> None:
    """Kills before the `fatal`-th file below `directory` that is opened for writing, renamed or removed."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        changes = event in ("os.rename", "os.remove") or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if not changes or not str(arguments[0]).startswith(directory):
            return
        seen += 1
        if listing:
            with open(listing, "a") as stream:
                stream.write(f"{event} {str(arguments[0]).removeprefix(directory)}\n")
        if seen == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def killing(fatal: int) -> Any:
    made = 0

    def counted(*arguments: Any) -> Any:
        nonlocal made
        made += 1
        if made == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return make_images(*arguments)

    return counted
