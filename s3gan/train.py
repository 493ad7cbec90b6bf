"""Trains a conditional GAN: ``accelerate launch -m s3gan.train data=DIR/train labels=TABLE method=s3gan run.dir=RUN``.

One loop over batches of real images: every batch is a discriminator step, every `d_steps`-th also a generator step.
"""

import sys

from cluster_jobs.config import command
from cluster_jobs.errors import UserError
from cluster_jobs.run import Run, Stateful
from cluster_jobs.shards import Shards
from s3gan.conditions import read_conditions, write_network
from s3gan.config import TrainConfig
from s3gan.gallery import save_samples, write_report
from s3gan.game import make_game
from s3gan.networks import NETWORKS
from s3gan.snapshot import export_generator
from s3gan.step import discriminator_step, generator_step
from s3gan.targets import open_targets


@command(TrainConfig)
def main(config: TrainConfig) -> None:
    if config.validate:
        return
    shards = Shards(config.data)
    if shards.size not in (sizes := NETWORKS[config.network.name].sizes):
        raise UserError(
            f"data={config.data}: images of {shards.size} px, expected one of {', '.join(map(str, sizes))} "
            f"for network={config.network.name}"
        )
    conditions = read_conditions(config, shards)
    run = Run(config)
    game, ema = make_game(config, run, conditions, shards)
    write_network(run, conditions, shards, game.generator.z_dim)
    targets = open_targets(run, conditions, shards)
    parts: dict[str, Stateful] = {
        "generator": game.generator,
        "discriminator": game.discriminator,
        "generator_ema": ema.average,
        "optimizer_g": game.optimizer_g,
        "optimizer_d": game.optimizer_d,
        **game.states,
    }
    stream = run.stream(shards, subset=conditions.method.subset(targets.labels))
    nimg = run.resume(parts)
    for batch in run.timed(stream.batches(nimg)):
        if nimg >= config.total_nimg:
            break
        images = batch.images.to(run.device, non_blocking=True).float() / 127.5 - 1
        given = targets.of(batch.indices).to(run.device, non_blocking=True)
        wanted = conditions.method.real_labels(given, lambda: game.fakes.draw("real labels", nimg)[1])  # noqa: B023
        metrics = discriminator_step(game, images, wanted, nimg)
        nimg += config.batch
        if nimg // config.batch % config.d_steps == 0:
            metrics |= generator_step(game, images, wanted, nimg)
            ema.update(game.generator, nimg)
        run.log(nimg, metrics)
        if run.due(config.sample_nimg, nimg) and run.is_main:
            save_samples(run.samples_dir / f"{nimg:012d}.png", ema.average, conditions, config.seed)
        if run.due(config.checkpoint_nimg, nimg):
            run.save(parts, nimg)
        if run.should_stop():
            run.preempt(parts, nimg)
    run.finish(parts, nimg)
    if run.is_main:
        export_generator(run.dir)
        write_report(run.dir, config.seed)
    run.barrier()


if __name__ == "__main__":
    sys.exit(main())
