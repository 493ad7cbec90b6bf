"""Trains a conditional GAN: ``accelerate launch -m s3gan.train data=DIR/train labels=TABLE method=s3gan run.dir=RUN``.

One loop over batches of real images: every batch is a discriminator step, every `d_steps`-th also a generator step.
"""

import sys

import torch

from cluster_jobs import seeds
from cluster_jobs.config import command
from cluster_jobs.errors import UserError
from cluster_jobs.run import Run, Stateful
from cluster_jobs.shards import Shards
from s3gan.conditions import Conditions, open_conditions, read_conditions
from s3gan.config import TrainConfig
from s3gan.ema import Ema
from s3gan.footprint import memory_lines
from s3gan.gallery import save_samples, write_report
from s3gan.methods import METHODS
from s3gan.networks.biggan import ARCHITECTURES, Discriminator, Generator
from s3gan.snapshot import export_generator
from s3gan.step import Fakes, Game, Rotation, discriminator_step, generator_step
from selfsup.batchnorm import synchronise


@command(TrainConfig)
def main(config: TrainConfig) -> None:
    if config.validate:
        return
    shards = Shards(config.data)
    if shards.size not in ARCHITECTURES:
        raise UserError(f"data={config.data}: images of {shards.size} px, expected one of {[*ARCHITECTURES]}")
    conditions = read_conditions(config.labels, METHODS[config.method.name], config.classes, shards)
    run = Run(config)
    labels = open_conditions(run, conditions, shards, config.width)
    game, ema = build(config, run, conditions, shards)
    parts: dict[str, Stateful] = {
        "generator": game.generator,
        "discriminator": game.discriminator,
        "generator_ema": ema.average,
        "optimizer_g": game.optimizer_g,
        "optimizer_d": game.optimizer_d,
    }
    stream = run.stream(shards, labels=labels)
    nimg = run.resume(parts)
    for batch in run.timed(stream.batches(nimg)):
        if nimg >= config.total_nimg:
            break
        images = batch.images.to(run.device, non_blocking=True).float() / 127.5 - 1
        given = batch.labels.to(run.device, non_blocking=True)
        real_labels = conditions.method.real_labels(given, lambda: game.fakes.draw("real labels", nimg)[1])  # noqa: B023
        metrics = discriminator_step(game, images, real_labels, nimg)
        nimg += config.batch
        if nimg // config.batch % config.d_steps == 0:
            metrics |= generator_step(game, nimg)
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


def build(config: TrainConfig, run: Run, conditions: Conditions, shards: Shards) -> tuple[Game, Ema[Generator]]:
    """The two players with keyed initial weights, their optimizers, and the generator's average."""
    method, classes = conditions.method, len(conditions.class_names)
    torch.manual_seed(seeds.mix(config.seed, "networks"))
    generator = Generator(shards.size, shards.channels, classes, config.width, embedding_std=config.embedding_std)
    discriminator = Discriminator(shards.size, shards.channels, classes, config.width, rotation=method.rotation)
    generator, discriminator = generator.to(run.device), discriminator.to(run.device)
    ema = Ema(generator, config.ema_decay, config.ema_start_nimg)  # before the run wraps it and the ranks share moments
    parts = run.world * config.accumulate
    if config.turned % parts:
        raise UserError(
            f"batch={config.batch}: the {config.turned} images to turn do not divide over {run.world} processes "
            f"of accumulate={config.accumulate} micro-batches"
        )
    betas = (config.beta1, config.beta2)
    optimizers = (
        torch.optim.Adam(generator.parameters(), config.g_lr, betas, fused=True),
        torch.optim.Adam(discriminator.parameters(), config.d_lr, betas, fused=True),
    )
    for line in memory_lines(run, generator, discriminator, optimizers, shards.channels, config.turned // parts):
        run.say(line)
    if run.world > 1:
        synchronise(generator, run.reduce)
    fakes = Fakes(
        seed=config.seed,
        batch=config.batch,
        rank=run.rank,
        world=run.world,
        z_dim=generator.z_dim,
        classes=classes,
        device=run.device,
        weights=conditions.device_weights(run.device),
    )
    game = Game(
        generator,
        discriminator,
        run.prepare(generator),
        run.prepare(discriminator),
        *optimizers,
        fakes,
        Rotation(config.turned // run.world, config.rotation_weight_d, config.rotation_weight_g),
        run.autocast,
        config.accumulate,
    )
    return game, ema


if __name__ == "__main__":
    sys.exit(main())
