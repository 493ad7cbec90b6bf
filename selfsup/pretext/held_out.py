"""The held-out part of a pretraining run: its score, its pictures, its section of the report."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cluster_jobs.data.images import to_float
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import scan
from cluster_jobs.reporting.grids import save_grid
from cluster_jobs.reporting.section import Picture, Section
from cluster_jobs.training.run import Run
from selfsup.pretext import PretextModel, PretextTask

SHEET_PICTURES = 10


class HeldOut:
    """Scores the averaged weights of a pretext model on pictures that it never learns from.

    Args:
        model: in evaluation mode.
        indices: the held-out samples; where there are none, scores are n/a and pictures are left out.
        name: of the task.
    """

    def __init__(
        self, run: Run, task: PretextTask, model: PretextModel, shards: Shards, indices: np.ndarray, name: str
    ) -> None:
        self.run, self.task, self.model, self.shards = run, task, model, shards
        self.indices, self.name = indices, name

    def error(self, nimg: int) -> float | None:
        """The share of wrong answers, which is also logged; None without pictures. Every rank calls this."""
        if not len(self.indices):
            return None
        loss, accuracy = self._score()
        self.run.record(nimg, {"held_out/loss": loss, "held_out/accuracy": accuracy})
        self.run.say(f"{nimg:,} images: {self.name} accuracy {accuracy:.4f} on {len(self.indices):,} held-out images")
        return 1 - accuracy

    @torch.no_grad()
    def _score(self) -> tuple[float, float]:
        """Loss and accuracy. Sums over pictures that one rank each reads, so the number of ranks does not matter."""
        sums = torch.zeros(2, device=self.run.device)
        for images in self._batches():
            inputs, answers = self.task.examples(to_float(images, self.run.device), "held out")
            outputs = self.model(inputs)
            sums += torch.stack([self.task.losses(outputs, answers).sum(), self.task.correct(outputs, answers).sum()])
        loss, accuracy = (self.run.reduce(sums) / len(self.indices)).tolist()
        return loss, accuracy

    def _batches(self) -> Iterator[Tensor]:
        """This rank's pictures as uint8 batches, without the empty ones."""
        config = self.run.config
        for batch in scan(
            self.shards, config.batch, self.run.rank, self.run.world, self.indices, damaged=config.damaged.name
        ):
            if len(batch.images):
                yield batch.images

    @torch.no_grad()
    def picture(self, path: Path) -> None:
        """Writes the first pictures with the model's answers."""
        if self.run.is_main and len(self.indices):
            shown = self.indices[:SHEET_PICTURES]
            images = next(scan(self.shards, len(shown), indices=shown, damaged=self.run.config.damaged.name)).images
            inputs, _ = self.task.examples(to_float(images, self.run.device), "held out")
            save_grid(path, *self.task.sheet(images, self.model(inputs).cpu()))

    def report(self, nimg: int) -> None:
        """Scores the finished run and leaves a section for the report. Every rank calls this."""
        accuracy = f"{self._score()[1]:.4f}" if len(self.indices) else "n/a"
        file = f"{self.name}.png"
        self.picture(self.run.dir / "report" / file)
        if not self.run.is_main:
            return
        columns = ["task", "images seen", "held-out images", "accuracy", "chance"]
        rows = [[self.name, nimg, len(self.indices), accuracy, self.task.chance]]
        pictures = (
            [Picture(file, "Held-out images: the answer, and the guess where it is wrong.")]
            if len(self.indices)
            else []
        )
        title = f"Pretraining: {self.name}"
        Section("pretrain", title=title, columns=columns, rows=rows, pictures=pictures).write(self.run.dir)
