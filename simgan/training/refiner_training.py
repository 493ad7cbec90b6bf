"""SimGAN training: implements the loop's `Training` interface.

A batch of simulated images is one step of the refiner R or of the discriminator D, as the schedule says.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from cluster_jobs.data.images import to_float
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Batch
from cluster_jobs.distributed.batch_split import contiguous
from cluster_jobs.training.ema import Ema, half_life_decay
from cluster_jobs.training.loop import Attempt
from cluster_jobs.training.optimizer_step import set_learning_rate
from cluster_jobs.training.run import CheckpointScore, Run, Stateful
from simgan.networks.refiner import Refiner
from simgan.training.config import RefinerTrainConfig
from simgan.training.game import RefinerGame
from simgan.training.sample_sheet import save_sheet
from simgan.training.schedule import AutoSchedule, Phase, Schedule
from simgan.training.step import discriminator_step, refiner_step
from simgan.training.validation import RefinerValidation


class RefinerTraining:
    """Trains R on simulated images and D on refined and real ones.

    Args:
        ema: the moving average of R's weights.
        validation: what scores the averaged R; None for no scores.
    """

    def __init__(
        self,
        run: Run[RefinerTrainConfig],
        game: RefinerGame,
        ema: Ema[Refiner],
        schedule: Schedule | AutoSchedule,
        synthetic: Shards,
        real: Shards,
        validation: RefinerValidation | None,
    ) -> None:
        self.run, self.config = run, run.config
        self.game, self.ema, self.schedule = game, ema, schedule
        self.synthetic, self.real, self.validation = synthetic, real, validation
        self._real_batches: Iterator[Batch] = iter(())
        self._warned = False

    @property
    def state(self) -> Mapping[str, Stateful]:
        """What a checkpoint holds, by name."""
        return {
            "refiner": self.game.refiner,
            "discriminator": self.game.discriminator,
            "refiner_ema": self.ema.average,
            "optimizer_r": self.game.optimizer_r,
            "optimizer_d": self.game.optimizer_d,
            "history": self.game.history,
            **self.schedule.state,
        }

    def batches(self, nimg: int, attempt: Attempt) -> Iterator[Batch]:
        """Batches of simulated images from `nimg` images on; the stream of real images continues where D stopped."""
        set_learning_rate(self.game.optimizer_r, self.config.lr_r * attempt.lr_factor)
        set_learning_rate(self.game.optimizer_d, self.config.lr_d * attempt.lr_factor)
        run, mine = self.run, contiguous(self.config.batch, self.run.rank, self.run.world)
        drawn = self.schedule.real_batches(nimg // self.config.batch) * self.config.batch
        self._real_batches = run.stream(self.real, mine=mine, name=f"real{attempt.draws}").batches(drawn)
        return run.stream(self.synthetic, mine=mine, name=f"synthetic{attempt.draws}").batches(nimg)

    def step(self, batch: Batch, nimg: int) -> Mapping[str, Tensor | float]:
        """One step of R or D, and of the moving average of R."""
        step = nimg // self.config.batch
        phase = self.schedule.phase(step)
        synthetic = to_float(batch.images, self.run.device)
        metrics: dict[str, Tensor | float] = {}
        if phase in (Phase.warm_refiner, Phase.refiner):
            metrics |= refiner_step(self.game, synthetic, adversarial=phase is Phase.refiner)
        else:
            real = to_float(next(self._real_batches).images, self.run.device)
            metrics |= discriminator_step(self.game, synthetic, real, step)
        averaging = phase is not Phase.warm_refiner and self.config.ema_nimg
        self.ema.update(
            self.game.refiner, half_life_decay(self.config.batch, self.config.ema_nimg) if averaging else 0.0
        )
        return metrics | self.schedule.metrics()

    def logged(self, nimg: int, means: Mapping[str, float]) -> None:
        """Adapts the schedule, and warns the first time that R changes its input by more than `max_change`."""
        self.schedule.observe(nimg // self.config.batch, means)
        change, limit = means.get("change/pixel", 0.0), self.config.max_change
        if change > limit and not self._warned:
            self._warned = True
            self.run.say(
                f"warning: {nimg:,} images: R leaves its input behind: it changes a pixel of [-1, 1] by {change:.3f} "
                f"in the mean (max_change={limit:g}); labels may not survive: raise regularisation="
            )

    def sample(self, path: Path) -> None:
        """Writes pairs of simulated and refined images next to real ones."""
        save_sheet(path, self.ema.average, self.synthetic, self.real, self.run.device, self.config.damaged.name)

    def score(self, nimg: int) -> CheckpointScore | None:
        """The distance of refined from real validation images. Every rank must call this."""
        return self.validation.score(self.ema.average, nimg) if self.validation else None
