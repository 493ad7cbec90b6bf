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
            measures = self.task.measures(self.module, views)
            assert len(measures) == len(sums), f"{len(measures)} measures, expected {', '.join(self.task.measured)}"
            sums += torch.stack([values.sum() for values in measures])
        return dict(zip(self.task.measured, (self.run.reduce(sums) / len(self.indices)).tolist(), strict=True))

    def _batches(self) -> Iterator[Batch]:
        """This rank's pictures, without the empty batches."""
        config = self.run.config
        batches = scan(
            self.shards, config.batch, self.run.rank, self.run.world, self.indices, damaged=config.damaged.name
        )
        return (batch for batch in batches if len(batch.images))

    def _views(self, batch: Batch) -> Views:
        """The views of this rank's images of a batch: of an image the same whatever the batch and the rank."""
        first = batch.position + contiguous(self.run.config.batch, self.run.rank, self.run.world).start
        return self.task.views(to_float(batch.images, self.run.device), self._draws(first, len(batch.images)))

    def _draws(self, first: int, count: int) -> Draws:
        """The draws for `count` of the held-out images, from number `first` on."""
        return Draws(len(self.indices), slice(first, first + count), ("held out",))

    @torch.no_grad()
    def picture(self, path: Path) -> None:
        """Writes what the module makes of the first pictures."""
        if self.run.is_main and len(self.indices):
            first = self.indices[:SHEET_PICTURES]
            images = next(scan(self.shards, len(first), indices=first, damaged=self.run.config.damaged.name)).images
            views = self.task.views(to_float(images, self.run.device), self._draws(0, len(images)))
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
