"""The one training loop. Every training command passes it a `Training`; after each step the loop does, in this order:
log, roll back if the run has diverged, draw samples, score, save a checkpoint, stop if asked to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from cluster_jobs.cli.config import TrainKeys
from cluster_jobs.data.stream import Batch
from cluster_jobs.training.rollback import NoRollback, Rollback
from cluster_jobs.training.run import CheckpointScore, Run, Stateful


@dataclass(frozen=True)
class Attempt:
    """What a training changes because of the rollbacks so far: "" and 1 before the first one."""

    draws: str  # part of the seed of every random draw
    lr_factor: float  # every learning rate is multiplied by it


class Training(Protocol):
    """One method in training: networks, optimizers and data. Cadences, checkpoints and signals are the loop's.

    Every rank has one, and the loop makes the same calls on each; all but `sample` may contain collectives.
    """

    @property
    def state(self) -> Mapping[str, Stateful]:
        """What a checkpoint holds, by name. The names are part of the file format."""

    def batches(self, nimg: int, attempt: Attempt) -> Iterator[Batch]:
        """The batches from `nimg` images on; sets the learning rates. Called at the start and after every rollback."""

    def step(self, batch: Batch, nimg: int) -> Mapping[str, Tensor | float]:
        """One training step on the batch that begins at `nimg` images; returns its metrics, scalars."""

    def logged(self, nimg: int, means: Mapping[str, float]) -> None:
        """Called at the log cadence with the means of the metrics, equal on all ranks: for schedules and warnings."""

    def sample(self, path: Path) -> None:
        """Writes a PNG of what the networks produce now. Called on the main rank alone."""

    def score(self, nimg: int) -> CheckpointScore | None:
        """Scores the networks as they are now; None where there is nothing to score with."""


def fit(run: Run[TrainKeys], training: Training, rollback: Rollback | NoRollback) -> int:
    """Trains to `total_nimg` images, from the newest checkpoint if there is one; returns the images seen."""
    config, state = run.config, {**training.state, **rollback.state}
    nimg = run.resume(state, optional=rollback.state)
    rollback.begin(state, nimg)
    while nimg < config.total_nimg:  # once, and again after every rollback
        for batch in run.timed(training.batches(nimg, Attempt(rollback.draws, rollback.lr_factor))):
            if nimg >= config.total_nimg:
                break
            metrics = training.step(batch, nimg)
            nimg += config.batch
            means = run.log(nimg, metrics)
            if means is not None:
                training.logged(nimg, means)
            if rollback.diverged(nimg, means):
                nimg = rollback.go_back(state, nimg)
                break
            if run.due(config.sample_nimg, nimg) and run.is_main:
                training.sample(run.samples_dir / f"{nimg:012d}.png")
            score = training.score(nimg) if run.due(config.eval_nimg, nimg) else None
            if run.due(config.checkpoint_nimg, nimg) or score is not None:
                run.save(state, nimg, score)
            if run.should_stop():
                run.preempt(state, nimg)
    run.finish(state, nimg)
    return nimg
