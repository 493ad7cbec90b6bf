"""The held-out part of a pretraining run: its score, its pictures, its section of the report."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from cluster_jobs.data.images import to_float
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Batch, scan
from cluster_jobs.distributed.batch_split import contiguous
from cluster_jobs.reporting.grids import save_grid
from cluster_jobs.reporting.section import Picture, Section
from cluster_jobs.training.run import CheckpointScore, Run
from selfsup.pretext.config import PretrainConfig
from selfsup.pretext.draws import Draws
from selfsup.pretext.protocol import PretextModule, PretextTask, Views

SHEET_PICTURES = 10


class HeldOut:
    """Scores the averaged weights of a task's module on pictures that it never learns from.

    Args:
        module: in evaluation mode.
        indices: the held-out samples; where there are none, scores are n/a and pictures are left out.
    """

    def __init__(
        self, run: Run[PretrainConfig], task: PretextTask, module: PretextModule, shards: Shards, indices: np.ndarray
    ) -> None:
        self.run, self.task, self.module, self.shards = run, task, module, shards
        self.indices, self.name = indices, run.config.task.name

    def score(self, nimg: int) -> CheckpointScore | None:
        """The task's score; all its measures are recorded. None without pictures. Every rank calls this."""
        if not len(self.indices):
            return None
        measures = self._measures()
        self.run.record(nimg, {f"held_out/{name}": value for name, value in measures.items()})
        value = measures[self.task.score]
        count = f"{len(self.indices):,}"
        self.run.say(f"{nimg:,} images: {self.name} {self.task.score} {value:.4f} on {count} held-out images")
        return CheckpointScore(value, self.task.higher_is_better)

    @torch.no_grad()
    def _measures(self) -> dict[str, float]:
        """Means over pictures, of sums over those that one rank each reads: the number of ranks does not matter."""
        sums = torch.zeros(len(self.task.measured), device=self.run.device)
        for batch in self._batches():
            views = self._views(batch)
            sums += torch.stack([values.sum() for values in self.task.measures(self.module, views)])
        return dict(zip(self.task.measured, (self.run.reduce(sums) / len(self.indices)).tolist(), strict=True))

    def _batches(self) -> Iterator[Batch]:
        """This rank's pictures, without the empty batches."""
        config = self.run.config
        batches = scan(
            self.shards, config.batch, self.run.rank, self.run.world, self.indices, damaged=config.damaged.name
        )
        return (batch for batch in batches if len(batch.images))

    def _views(self, batch: Batch) -> Views:
        """The views of this rank's pictures of a global batch: the same of a picture whichever rank reads it."""
        share = contiguous(self.run.config.batch, self.run.rank, self.run.world)
        mine = slice(share.start, share.start + len(batch.images))  # the last batch may be short
        draws = Draws(self.run.config.batch, mine, ("held out", batch.position))
        return self.task.views(to_float(batch.images, self.run.device), draws)

    @torch.no_grad()
    def picture(self, path: Path) -> None:
        """Writes what the module makes of the first pictures."""
        if self.run.is_main and len(self.indices):
            first = self.indices[:SHEET_PICTURES]
            images = next(scan(self.shards, len(first), indices=first, damaged=self.run.config.damaged.name)).images
            draws = Draws(len(images), slice(None), ("held out", 0))
            views = self.task.views(to_float(images, self.run.device), draws)
            save_grid(path, *self.task.sheet(self.module, images, views))

    def report(self, nimg: int) -> None:
        """Scores the finished run and leaves a section for the report. Every rank calls this."""
        score = f"{self._measures()[self.task.score]:.4f}" if len(self.indices) else "n/a"
        file = f"{self.name}.png"
        self.picture(self.run.dir / "report" / file)
        if not self.run.is_main:
            return
        Section(
            "pretrain",
            f"Pretraining: {self.name}",
            pictures=[Picture(file, self.task.caption)] if len(self.indices) else [],
            columns=["task", "images seen", "held-out images", self.task.score, "chance"],
            rows=[[self.name, nimg, len(self.indices), score, self.task.chance]],
        ).write(self.run.dir)
