"""Trains a refiner.

``accelerate launch -m simgan.train task=digits synthetic=SYN/train real=DIR/train run.dir=RUN``
"""

import copy
import sys
from collections.abc import Iterator

import torch

from cluster_jobs.config import command
from cluster_jobs.errors import UserError
from cluster_jobs.files import write_json
from cluster_jobs.images import shape_text
from cluster_jobs.optimise import Metrics
from cluster_jobs.run import Run, Stateful
from cluster_jobs.seeds import mix
from cluster_jobs.shards import Shards
from cluster_jobs.stream import Batch
from simgan.config import TrainConfig
from simgan.discriminator import PatchDiscriminator
from simgan.footprint import memory_lines
from simgan.gallery import save_sheet
from simgan.history import History
from simgan.refiner import Refiner
from simgan.schedule import Phase, Schedule
from simgan.snapshot import describe_network, to_input
from simgan.step import Game, average, discriminator_step, refiner_step
from simgan.tasks import TASKS


@command(TrainConfig)
def main(config: TrainConfig) -> None:
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
    if synthetic.height % config.fold or synthetic.width % config.fold:
        sides = shape_text(synthetic.shape[1:])
        raise UserError(f"fold={config.fold}: expected a divisor of the images' height and width, {sides}")


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
    optimizers = (
        torch.optim.Adam(refiner.parameters(), config.lr_r, betas, fused=True),
        torch.optim.Adam(discriminator.parameters(), config.lr_d, betas, fused=True),
    )
    history = History(config.history, synthetic.shape, seed=config.seed, device=run.device)
    for line in memory_lines(run, refiner, discriminator, optimizers, history):
        run.say(line)
    game = Game(
        refiner,
        discriminator,
        run.prepare(refiner),
        run.prepare(discriminator),
        *optimizers,
        history,
        config.regularisation,
        run.rank,
        run.gather,
        run.autocast,
        config.accumulate,
    )
    return game, averaged


def play(game: Game, schedule: Schedule, step: int, batch: Batch, real_batches: Iterator[Batch], run: Run) -> Metrics:
    """Updates the player whose turn it is at ``step``."""
    synthetic = to_input(batch.images, run.device)
    phase = schedule.phase(step)
    if phase in (Phase.warm_refiner, Phase.refiner):
        return refiner_step(game, synthetic, adversarial=phase is Phase.refiner)
    return discriminator_step(game, synthetic, to_input(next(real_batches).images, run.device), step)


if __name__ == "__main__":
    sys.exit(main())
