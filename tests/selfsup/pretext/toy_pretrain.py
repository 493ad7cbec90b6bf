"""Pretrains on a toy task as `selfsup.pretrain` does on a real one: the same run, stream, loop and checkpoints."""

import sys
from dataclasses import dataclass
from enum import Enum

from cluster_jobs.cli.config import MISSING, command, option
from selfsup.pretext.config import PretrainConfig
from selfsup.pretrain import pretrain
from tests.selfsup.pretext.toy_tasks import TOYS

ToyTask = Enum("ToyTask", list(TOYS))  # type: ignore[misc]


@dataclass
class ToyConfig(PretrainConfig):
    """Pretrains an encoder on a toy task."""

    task: ToyTask = option(MISSING, "which toy")  # type: ignore[valid-type]


@command(ToyConfig, conf="selfsup.conf")
def main(config: ToyConfig) -> None:
    pretrain(config, TOYS[config.task.name]())


if __name__ == "__main__":
    sys.exit(main())
