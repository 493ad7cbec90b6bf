"""A stage for the tests of pipelines: appends a line to a file, or fails as it is told.

``TOY_ENDLESS=FILE`` in the environment: the stage that is to append to it works for ever.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.core.errors import Preempted, UserError


class Fate(Enum):
    done = "done"
    user = "user"
    crash = "crash"
    preempted = "preempted"
    killed = "killed"
    silent = "silent"


@dataclass
class ToyConfig:
    """Appends a line to a file."""

    out: str = option(MISSING, "file to append to", path=True)
    text: str = option("x", "the line", path=True)
    reads: str = option("", "file that must exist", path=True)
    seconds: float = option(0.0, "how long it works")
    fate: Fate = option(Fate.done, "how it ends")
    validate: bool = option(False, "check, then exit")


@command(ToyConfig, conf="cluster_jobs.conf")
def main(config: ToyConfig) -> None:
    if config.seconds < 0:
        raise UserError(f"seconds={config.seconds}: expected a positive number")
    if config.validate:
        return
    if config.reads and not Path(config.reads).is_file():
        raise UserError(f"reads={config.reads}: no such file")
    print(f"threads {os.environ.get('OMP_NUM_THREADS')}, processes {os.environ.get('WORLD_SIZE', '1')}")
    deadline = time.monotonic() + config.seconds
    while time.monotonic() < deadline or config.out == os.environ.get("TOY_ENDLESS"):
        print(f"{config.seconds} seconds in all", end="\r")
        time.sleep(0.05)
    if config.fate is Fate.user:
        raise UserError("this is the user's mistake")
    if config.fate is Fate.crash:
        raise RuntimeError("this is a defect")
    if config.fate is Fate.preempted:
        raise Preempted("saved")
    if config.fate is Fate.killed:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.fate is Fate.silent:
        os._exit(0)
    if os.environ.get("RANK", "0") == "0":
        with open(config.out, "a") as stream:
            stream.write(config.text + "\n")


if __name__ == "__main__":
    sys.exit(main())
