"""The keys of a command's configuration: how one is declared, and those that commands share."""

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any

from omegaconf import MISSING

from cluster_jobs.core.errors import UserError


def option(
    default: Any, help: str, *, path: bool = False, formerly: str = "", former_values: Mapping[str, str] | None = None
) -> Any:
    """A configuration key with its meaning. The value of a ``path`` key is taken literally from the command line.

    Args:
        formerly: what the key was called in older versions, whose runs continue under the present name.
        former_values: from what its values were called then to what they are called now.
    """
    metadata = {"help": help, "path": path, "formerly": formerly, "former_values": former_values or {}}
    if dataclasses.is_dataclass(default) or isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def group(schema: type, help: str) -> Any:
    """A nested group of keys, written ``group.key=value``."""
    metadata = {"help": help, "path": False, "formerly": "", "former_values": {}}
    return dataclasses.field(default_factory=schema, metadata=metadata)


class Precision(Enum):
    no = "no"
    bf16 = "bf16"


class Damaged(Enum):
    fatal = "fatal"
    replace = "replace"


@dataclasses.dataclass
class RunKeys:
    dir: str = option(MISSING, "run directory: configuration, metrics, checkpoints, samples", path=True)


@dataclasses.dataclass
class TrainKeys:
    """The keys that every training command shares. Cadences are in images seen (``*_nimg``)."""

    run: RunKeys = group(RunKeys, "the run's directory")
    seed: int = option(0, "seed of every keyed random draw")
    batch: int = option(64, "images a step over all processes (global batch)")
    total_nimg: int = option(100_000, "images to see in all; may grow when a run is continued")
    log_nimg: int = option(2_000, "images between two lines of metrics")
    checkpoint_nimg: int = option(20_000, "images between two checkpoints")
    sample_nimg: int = option(20_000, "images between two sample pictures")
    eval_nimg: int = option(50_000, "images between two evaluations on the validation part")
    keep_last: int = option(2, "newest checkpoints to keep")
    keep_best: int = option(1, "best-scored checkpoints to keep besides")
    workers: int = option(-1, "reader processes a rank; 0 reads in the training process, -1 chooses")
    window: str = option("64", "blocks shuffled together; 'all' is the full shuffle")
    damaged: Damaged = option(Damaged.fatal, "a sample that cannot be decoded: stop, or replace it by the next one")
    precision: Precision = option(Precision.no, "automatic mixed precision")
    accumulate: int = option(1, "micro-batches a rank and step: same batch, less memory; batch norm sees each alone")
    compile: bool = option(False, "torch.compile the networks that learn; takes minutes at the start")
    threads: int = option(0, "CPU threads a process; 0 takes the default and freezes it with the run")
    validate: bool = option(False, "check and print the configuration, then exit")
    init_from: str = option("", "start a new run from another run's weights", path=True)
    rebatch: bool = option(
        False, "go on with another batch: the streams stay at their image position, the steps change"
    )
    watchdog_seconds: int = option(1_800, "seconds without a finished step after which a hanging run ends; 0: never")

    def check(self) -> None:
        """Raises UserError for a number outside its range."""
        for name in ("batch", "total_nimg", "log_nimg", "checkpoint_nimg", "sample_nimg", "eval_nimg", "keep_last"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive integer")
        for name, least in (("workers", -1), ("threads", 0), ("keep_best", 0), ("watchdog_seconds", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: expected an integer of at least {least}")
        if self.accumulate < 1 or self.batch % self.accumulate:
            raise UserError(f"accumulate={self.accumulate}: expected a positive divisor of batch={self.batch}")
        if self.window != "all" and not (self.window.isdigit() and int(self.window) > 0):
            raise UserError(f"window={self.window}: expected 'all' or a positive number of blocks")


@dataclasses.dataclass
class RollbackKeys(TrainKeys):
    """The keys of training commands whose runs may diverge, and then go back to a healthy checkpoint."""

    rollback: int = option(
        3, "how often a run that diverges or collapses may go back to its last healthy checkpoint; 0: never"
    )
    rollback_lr: float = option(0.5, "the learning rates are multiplied by this at every rollback")
    health_nimg: int = option(
        0,
        "images over which every line of metrics must be bad (or good) to decide, three lines at least; 0: as many as "
        "checkpoint_nimg, and 100 steps at least",
    )

    def check(self) -> None:
        super().check()
        for name in ("rollback", "health_nimg"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)}: expected a number of at least 0")
        if not 0 < self.rollback_lr <= 1:
            raise UserError(f"rollback_lr={self.rollback_lr}: expected a number above 0, at most 1")

    @property
    def health_window(self) -> int:
        """Images over which a run must have problems to count as diverged, or none for a checkpoint to be healthy."""
        return max(self.health_nimg or max(self.checkpoint_nimg, 100 * self.batch), 3 * self.log_nimg)


@dataclasses.dataclass
class CommandKeys:
    """The keys that every command without a run directory of its own shares."""

    seed: int = option(0, "seed of every keyed random draw")
    threads: int = option(0, "CPU threads a process; 0 takes the default")
    validate: bool = option(False, "check and print the configuration, then exit")

    def check(self) -> None:
        """Raises UserError for a number outside its range."""
        if self.threads < 0:
            raise UserError(f"threads={self.threads}: expected an integer of at least 0")
