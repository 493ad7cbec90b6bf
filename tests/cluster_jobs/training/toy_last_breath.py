"""A command whose process aborts when the interpreter goes down, as a thread of gloo can make it."""

import atexit
import os
import sys
from dataclasses import dataclass

from cluster_jobs.cli.config import CommandKeys, command


class AbortsLate:
    def __del__(self) -> None:
        os.abort()


kept = AbortsLate()


@dataclass
class Toy(CommandKeys):
    """Does nothing."""


@command(Toy, conf="cluster_jobs.conf")
def main(config: Toy) -> None:
    atexit.register(print, "cleaned up")
    print("still in the buffer", end="")


if __name__ == "__main__":
    sys.exit(main())
