"""Conditional GAN training: implements the loop's `Training` interface.

Each batch is a step of D, every `d_steps`-th also a step of G.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from cluster_jobs.core.seeds import derive_seed
from cluster_jobs.data.images import to_float
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Batch
from cluster_jobs.training.ema import Ema
from cluster_jobs.training.loop import Attempt
from cluster_jobs.training.optimizer_step import set_learning_rate
from cluster_jobs.training.run import CheckpointScore, Run, Stateful
from s3gan.networks import Generator
from s3gan.pictures.sample_grid import save_samples
from s3gan.training.conditioning import Conditions, TrainingLabels
from s3gan.training.config import TrainConfig
from s3gan.training.game import Game
from s3gan.training.reclustering import Reclustering
from s3gan.training.step import discriminator_step, generator_step
from s3gan.training.validation import Validation


class GanTraining:
    """Trains the two networks of a game on the real images of a stream and their conditions.

    Args:
        ema: of the generator's weights.
        subset: the samples to train on, ascending indices; None for all.
        validation: what scores the averaged generator; None for no scores.
    """

    def __init__(
        self,
        run: Run[TrainConfig],
        game: Game,
        ema: Ema[Generator],
        conditions: Conditions,
        training_labels: TrainingLabels,
        shards: Shards,
        subset: np.ndarray | None,
        validation: Validation | None,
    ) -> None:
        self.run, self.config = run, run.config
        self.game, self.ema = game, ema
        self.conditions, self.training_labels, self.shards, self.subset = conditions, training_labels, shards, subset
        self.validation = validation
        self.clusters = Reclustering(run, game, conditions, training_labels, shards, subset)

    @property
    def state(self) -> Mapping[str, Stateful]:
        """What a checkpoint holds, by name."""
        return {
            "generator": self.game.generator,
            "discriminator": self.game.discriminator,
            "generator_ema": self.ema.average,
            "optimizer_g": self.game.optimizer_g,
            "optimizer_d": self.game.optimizer_d,
            **self.game.states,
            **self.clusters.parts(),
        }

    def batches(self, nimg: int, attempt: Attempt) -> Iterator[Batch]:
        """Batches of real images from `nimg` images on; after a rollback with other draws and learning rates."""
        set_learning_rate(self.game.optimizer_g, self.config.g_lr * attempt.lr_factor)
        set_learning_rate(self.game.optimizer_d, self.config.d_lr * attempt.lr_factor)
        if attempt.draws:
            fakes = replace(self.game.fakes, seed=derive_seed(self.config.seed, attempt.draws))
            self.game = replace(self.game, fakes=fakes)
        stream = self.run.stream(self.shards, mine=self.game.fakes.mine, name=attempt.draws, subset=self.subset)
        return stream.batches(nimg)

    def step(self, batch: Batch, nimg: int) -> Mapping[str, Tensor | float]:
        """A step of D on real images and fakes, and of G if it is due."""
        game, method = self.game, self.conditions.method
        metrics: dict[str, Tensor | float] = {**self.clusters.update(nimg)}  # before the batch's labels are looked up
        images = to_float(batch.images, self.run.device)
        labels = self.training_labels.of(batch.indices).to(self.run.device, non_blocking=True)
        conditions = method.real_labels(labels, lambda: game.fakes.draw("real labels", nimg)[1])
        metrics |= discriminator_step(game, images, conditions, nimg)
        nimg += self.config.batch
        if nimg // self.config.batch % self.config.d_steps == 0:
            metrics |= generator_step(game, images, conditions, nimg)
            self.ema.update(game.generator, self.config.ema_decay if nimg > self.config.ema_start_nimg else 0.0)
        return metrics

    def logged(self, nimg: int, means: Mapping[str, float]) -> None:
        """Nothing adapts to the means."""

    def sample(self, path: Path) -> None:
        """Writes a grid of the averaged generator's samples, one class per row."""
        save_samples(path, self.ema.average, self.conditions.weights, self.config.seed)

    def score(self, nimg: int) -> CheckpointScore | None:
        """The distance of the averaged generator's samples from the validation part. Every rank must call this."""
        return CheckpointScore(self.validation.score(self.ema.average, nimg)) if self.validation else None
