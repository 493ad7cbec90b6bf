"""Trains a refiner.

``accelerate launch -m simgan.train task=digits synthetic=SYN/train real=DIR/train run.dir=RUN``
"""

import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch

from cluster_jobs.config import MISSING, TrainKeys, command, key
from cluster_jobs.errors import UserError
from cluster_jobs.files import write_json
from cluster_jobs.images import save_grid
from cluster_jobs.run import Run, Stateful
from cluster_jobs.seeds import mix
from cluster_jobs.shards import Shards
from cluster_jobs.stream import Batch
from simgan.discriminator import PatchDiscriminator
from simgan.history import History
from simgan.refiner import Refiner
from simgan.schedule import Phase, Schedule
from simgan.snapshot import describe_network, refine_images, to_input
from simgan.step import Game, Metrics, average, discriminator_step, refiner_step
from simgan.tasks import TASKS, TaskName

SHEET_ROWS, SHEET_PAIRS = 10, 4  # the sample picture: pairs of simulated and refined, then as many real ones


class Patches(Enum):
    gaze = "gaze"
    hand = "hand"


@dataclass
class TrainConfig(TrainKeys):
    """Trains a refiner R that makes synthetic images look real, against a local discriminator D (SimGAN).

    A step updates R or D on one batch. *_nimg counts synthetic images drawn by R, which draws a batch at every step.
    Defaults are those of task=digits; the paper's gaze refiner is width=64 fold=1.
    """

    task: TaskName = key(TaskName.digits, "what is simulated: digits (printed → handwritten)")
    synthetic: str = key(MISSING, "shards of simulated images", path=True)
    real: str = key(MISSING, "shards of real images; their labels are not read", path=True)
    batch: int = key(32, "synthetic images a step, and real ones at a step of D, over all processes; even on each")
    total_nimg: int = key(40_000, "synthetic images to see in all; may grow when a run is continued")
    checkpoint_nimg: int = key(8_000, "images between two checkpoints")
    sample_nimg: int = key(8_000, "images between two sample pictures")
    eval_nimg: int = key(50_000, "no effect here: simgan.evaluate scores a run afterwards")
    warm_refiner_nimg: int = key(320, "images of the warm-up of R alone, on self-regularisation")
    warm_discriminator_nimg: int = key(1_280, "images of the warm-up of D alone, after that of R")
    k_g: int = key(2, "steps of R a round; raise it where D is too strong")
    k_d: int = key(1, "steps of D a round")
    regularisation: float = key(0.05, "λ: adversarial summed over patches + λ · |change| summed over pixels in [-1, 1]")
    history: int = key(2_000, "refined images kept for D; at least half a batch")
    lr_r: float = key(1e-3, "learning rate of R (Adam)")
    lr_d: float = key(1e-3, "learning rate of D (Adam)")
    beta1: float = key(0.5, "Adam's decay of the first moment, for both")
    ema_nimg: int = key(4_000, "half-life, in images, of the average of R's weights that refines; 0: R as it is")
    width: int = key(32, "feature maps of R")
    blocks: int = key(4, "residual blocks of R")
    stem: int = key(3, "kernel of R's first convolution, odd")
    fold: int = key(2, "R works on fold × fold pixels as channels: sees fold times as far for 1 / fold² of the work")
    patches: Patches = key(Patches.gaze, "layers of D: the paper's for gaze (sees 23 pixels) or for hand pose (71)")

    def check(self) -> None:
        """Raises UserError for a number outside its range."""
        super().check()
        for name in ("k_g", "k_d", "width", "fold", "history"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive integer")
        for name in ("warm_refiner_nimg", "warm_discriminator_nimg", "regularisation", "blocks", "ema_nimg"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}={getattr(self, name)}: expected no negative number")
        for name in ("lr_r", "lr_d"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive number")
        if not 0 <= self.beta1 < 1:
            raise UserError(f"beta1={self.beta1}: expected at least 0 and below 1")
        if self.stem < 1 or self.stem % 2 == 0:
            raise UserError(f"stem={self.stem}: expected an odd kernel")
        if self.batch % 2:
            raise UserError(f"batch={self.batch}: expected an even number, half of it goes through the history")
        if self.history < self.batch // 2:
            raise UserError(f"history={self.history}: expected at least half a batch, {self.batch // 2}")


@command(TrainConfig)
def main(config: TrainConfig) -> None:
    config.check()
    if config.validate:
        return
    synthetic, real = Shards(config.synthetic), Shards(config.real)
    check_domains(config, synthetic, real)
    run = Run(config)
    if run.local_batch % 2:
        raise UserError(f"batch={config.batch}: expected an even share for each of {run.world} processes")
    game, averaged = build(config, synthetic, run)
    parts: dict[str, Stateful] = {
        "refiner": game.refiner,
        "discriminator": game.discriminator,
        "refiner_ema": averaged,
        "optimizer_r": game.optimizer_r,
        "optimizer_d": game.optimizer_d,
        "history": game.history,
    }
    nimg = run.resume(parts)
    if run.is_main:
        write_json(run.dir / "network.json", describe_network(config, synthetic, real))
    # ceiling: a warm-up that ends within a step covers that step
    warm_refiner, warm_discriminator = (
        -(-images // config.batch) for images in (config.warm_refiner_nimg, config.warm_discriminator_nimg)
    )
    schedule = Schedule(warm_refiner, warm_discriminator, config.k_g, config.k_d)
    real_batches = run.stream(real, name="real").batches(schedule.real_batches(nimg // config.batch) * config.batch)
    losses: Metrics = {}  # the last of each player, as a step updates one of them
    for batch in run.timed(run.stream(synthetic, name="synthetic").batches(nimg)):
        if nimg >= config.total_nimg:
            break
        losses |= play(game, schedule, nimg // config.batch, batch, real_batches, run)
        following = schedule.phase(nimg // config.batch) is not Phase.warm_refiner and config.ema_nimg
        average(averaged, game.refiner, 0.5 ** (config.batch / config.ema_nimg) if following else 0.0)
        nimg += config.batch
        run.log(nimg, losses)
        if run.due(config.sample_nimg, nimg) and run.is_main:
            save_sheet(run, averaged, synthetic, real, nimg)
        if run.due(config.checkpoint_nimg, nimg):
            run.save(parts, nimg)
        if run.should_stop():
            run.preempt(parts, nimg)
    if run.is_main:
        save_sheet(run, averaged, synthetic, real, nimg)
    run.finish(parts, nimg)


def check_domains(config: TrainConfig, synthetic: Shards, real: Shards) -> None:
    """Raises UserError where the two directories cannot be trained on together, or R cannot fold the images."""
    TASKS[config.task].check(synthetic, real)
    if synthetic.size % config.fold:
        raise UserError(f"fold={config.fold}: expected a divisor of the image size {synthetic.size}")


def build(config: TrainConfig, synthetic: Shards, run: Run) -> tuple[Game, Refiner]:
    """The two players, keyed by the seed, and the average of R's weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(config.seed, "simgan networks"))
        refiner = Refiner(
            synthetic.channels, width=config.width, blocks=config.blocks, stem=config.stem, fold=config.fold
        )
        discriminator = PatchDiscriminator(synthetic.channels, config.patches.name)
    # channels_last halves the time of a convolution on CPUs and serves tensor cores
    refiner = refiner.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    discriminator = discriminator.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(refiner).requires_grad_(False)
    betas = (config.beta1, 0.999)
    shape = (synthetic.channels, synthetic.size, synthetic.size)
    game = Game(
        refiner,
        discriminator,
        run.prepare(refiner),
        run.prepare(discriminator),
        torch.optim.Adam(refiner.parameters(), config.lr_r, betas, fused=True),
        torch.optim.Adam(discriminator.parameters(), config.lr_d, betas, fused=True),
        History(config.history, shape, seed=config.seed, device=run.device),
        config.regularisation,
        run.rank,
        run.gather,
        run.autocast,
    )
    return game, averaged


def play(game: Game, schedule: Schedule, step: int, batch: Batch, real_batches: Iterator[Batch], run: Run) -> Metrics:
    """Updates the player whose turn it is at ``step``."""
    synthetic = to_input(batch.images, run.device)
    phase = schedule.phase(step)
    if phase in (Phase.warm_refiner, Phase.refiner):
        return refiner_step(game, synthetic, adversarial=phase is Phase.refiner)
    return discriminator_step(game, synthetic, to_input(next(real_batches).images, run.device), step)


def save_sheet(run: Run, refiner: Refiner, synthetic: Shards, real: Shards, nimg: int) -> None:
    """Pairs of simulated and refined on the left, real images beside them: the same ones at every cadence."""
    count = SHEET_ROWS * SHEET_PAIRS
    before, beside = (
        np.stack([shards.image(int(index)) for index in np.linspace(0, len(shards) - 1, count)])
        for shards in (synthetic, real)
    )
    after = refine_images(refiner, before, run.device)
    rows = np.stack([before, after], 1).reshape(SHEET_ROWS, 2 * SHEET_PAIRS, *before.shape[1:])
    rows = np.concatenate([rows, beside.reshape(SHEET_ROWS, SHEET_PAIRS, *before.shape[1:])], 1)
    sheet = rows.reshape(-1, *before.shape[1:])
    save_grid(run.samples_dir / f"{nimg:012d}.png", sheet, rows.shape[1], scale=2 if synthetic.size < 64 else 1)


if __name__ == "__main__":
    sys.exit(main())
