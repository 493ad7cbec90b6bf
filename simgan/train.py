"""Trains a refiner.

``accelerate launch -m simgan.train task=digits synthetic=SYN/train real=DIR/train run.dir=RUN``
"""

import sys
from collections.abc import Iterator

from cluster_jobs.cli.config import command
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_json
from cluster_jobs.data.images import shape_text
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Batch
from cluster_jobs.distributed.batch_split import neighbouring
from cluster_jobs.training.frozen_config import check_facts
from cluster_jobs.training.optimizer_step import Metrics
from cluster_jobs.training.run import Run, Stateful
from simgan.networks.discriminator import patches
from simgan.networks.trained_refiner import describe_network, to_input
from simgan.tasks import TASKS
from simgan.training.config import TrainConfig, Verdict
from simgan.training.game import build, make_schedule, open_encoder
from simgan.training.rollback import Health
from simgan.training.sample_sheet import save_sheet
from simgan.training.schedule import AutoSchedule, Phase, Schedule
from simgan.training.step import Game, average, discriminator_step, refiner_step


@command(TrainConfig)
def main(config: TrainConfig) -> None:
    if config.validate:
        return
    synthetic, real = Shards(config.synthetic), Shards(config.real)
    check_domains(config, synthetic, real)
    encoder = open_encoder(config, synthetic)
    run = Run(config)
    if run.local_batch % 2:
        raise UserError(f"batch={config.batch}: expected an even share for each of {run.world} processes")
    network = describe_network(config, synthetic, real, encoder)
    check_facts(run.dir / "network.json", network, "other data or another encoder")
    game, averaged = build(config, synthetic, encoder, run)
    schedule, health = make_schedule(config), Health(run)
    parts: dict[str, Stateful] = {
        "refiner": game.refiner,
        "discriminator": game.discriminator,
        "refiner_ema": averaged,
        "optimizer_r": game.optimizer_r,
        "optimizer_d": game.optimizer_d,
        "history": game.history,
        "health": health,
        **schedule.parts(),
    }
    nimg = run.resume(parts, younger=["health"])
    if run.is_main:
        write_json(run.dir / "network.json", network)
    health.begin(parts, nimg)
    mine = neighbouring(config.batch, run.rank, run.world)
    while nimg < config.total_nimg:  # once, and again after every roll-back
        health.set_rates(game.optimizer_r, game.optimizer_d)
        drawn = schedule.real_batches(nimg // config.batch) * config.batch
        real_batches = run.stream(real, mine=mine, name=f"real{health.draws}").batches(drawn)
        synthetic_batches = run.stream(synthetic, mine=mine, name=f"synthetic{health.draws}").batches(nimg)
        for batch in run.timed(synthetic_batches):
            if nimg >= config.total_nimg:
                break
            step = nimg // config.batch
            metrics = play(game, schedule, step, batch, real_batches, run)
            following = schedule.phase(step) is not Phase.warm_refiner and config.ema_nimg
            average(averaged, game.refiner, 0.5 ** (config.batch / config.ema_nimg) if following else 0.0)
            nimg += config.batch
            means = run.log(nimg, {**metrics, **schedule.metrics()})
            schedule.observe(nimg // config.batch, means)
            health.tell_change(nimg, means)
            if health.sick(nimg, means):
                nimg = health.roll_back(parts, nimg)
                break
            if run.due(config.sample_nimg, nimg) and run.is_main:
                save_sheet(run, averaged, synthetic, real, nimg)
            if run.due(config.checkpoint_nimg, nimg):
                run.save(parts, nimg)
            if run.should_stop():
                run.preempt(parts, nimg)
    if run.is_main:
        save_sheet(run, averaged, synthetic, real, nimg)
    run.finish(parts, nimg)
    health.report_change()


def check_domains(config: TrainConfig, synthetic: Shards, real: Shards) -> None:
    """Raises UserError where the two directories cannot be trained on together, R cannot fold the images, or a local D
    would judge each as a whole."""
    TASKS[config.task].check(synthetic, real)
    if synthetic.height % config.fold or synthetic.width % config.fold:
        sides = shape_text(synthetic.shape[1:])
        raise UserError(f"fold={config.fold}: expected a divisor of the images' height and width, {sides}")
    if config.verdict is Verdict.local and patches(config.patches.name, (synthetic.height, synthetic.width)) == (1, 1):
        raise UserError(
            f"patches={config.patches.name}: D would see images of {shape_text(synthetic.shape[1:])} as one patch; "
            "expected larger images, patches=gaze, or verdict=global"
        )


def play(
    game: Game, schedule: Schedule | AutoSchedule, step: int, batch: Batch, real_batches: Iterator[Batch], run: Run
) -> Metrics:
    """Updates the player whose turn it is at ``step``."""
    synthetic = to_input(batch.images, run.device)
    phase = schedule.phase(step)
    if phase in (Phase.warm_refiner, Phase.refiner):
        return refiner_step(game, synthetic, adversarial=phase is Phase.refiner)
    return discriminator_step(game, synthetic, to_input(next(real_batches).images, run.device), step)


if __name__ == "__main__":
    sys.exit(main())
