"""Trains a conditional GAN: ``accelerate launch -m s3gan.train data=DIR/train labels=TABLE method=s3gan run.dir=RUN``.

One loop over batches of real images: every batch is a discriminator step, every `d_steps`-th also a generator step.
A run that gets sick goes back to a healthy checkpoint, and through the loop again.
"""

import sys

from torch import Tensor

from cluster_jobs.cli.config import command
from cluster_jobs.core.errors import UserError
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.run import Run, Stateful
from s3gan.inference.loading import export_generator
from s3gan.networks import NETWORKS
from s3gan.pictures.sample_grid import save_samples, write_report
from s3gan.training.conditioning import read_conditions, write_network
from s3gan.training.config import TrainConfig
from s3gan.training.game import make_game
from s3gan.training.reclustering import Reclustering
from s3gan.training.rollback import Health
from s3gan.training.step import discriminator_step, generator_step
from s3gan.training.targets import open_targets
from s3gan.training.validation import Validation, read_judge, training_subset


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
    conditions, judge = read_conditions(config, shards), read_judge(config, shards)
    run = Run(config)
    game, ema = make_game(config, run, conditions, shards)
    write_network(run, conditions, shards, game.generator.z_dim)
    targets = open_targets(run, conditions, shards)
    validation = Validation(run, judge, shards, conditions) if judge else None
    if validation is None:
        run.say("no scores during training: eval_encoder= names no encoder")
    health = Health(run)
    subset = training_subset(config, conditions.method.subset(targets.labels), shards)
    clusters = Reclustering(run, game, conditions, targets, shards, subset)
    parts: dict[str, Stateful] = {
        "generator": game.generator,
        "discriminator": game.discriminator,
        "generator_ema": ema.average,
        "optimizer_g": game.optimizer_g,
        "optimizer_d": game.optimizer_d,
        **game.states,
        "health": health,
        **clusters.parts(),
    }
    nimg = run.resume(parts, younger=["health"])
    health.begin(parts, nimg)
    while nimg < config.total_nimg:  # once, and again after every roll-back
        game = health.attempt(game)
        stream = run.stream(shards, mine=game.fakes.mine, name=health.draws, subset=subset)
        for batch in run.timed(stream.batches(nimg)):
            if nimg >= config.total_nimg:
                break
            metrics: dict[str, Tensor | float] = {**clusters.update(nimg)}  # before the batch's labels are looked up
            images = batch.images.to(run.device, non_blocking=True).float() / 127.5 - 1
            given = targets.of(batch.indices).to(run.device, non_blocking=True)
            wanted = conditions.method.real_labels(given, lambda: game.fakes.draw("real labels", nimg)[1])  # noqa: B023
            metrics |= discriminator_step(game, images, wanted, nimg)
            nimg += config.batch
            if nimg // config.batch % config.d_steps == 0:
                metrics |= generator_step(game, images, wanted, nimg)
                ema.update(game.generator, nimg)
            if health.sick(nimg, run.log(nimg, metrics)):
                nimg = health.roll_back(parts, nimg)
                break
            if run.due(config.sample_nimg, nimg) and run.is_main:
                save_samples(run.samples_dir / f"{nimg:012d}.png", ema.average, conditions, config.seed)
            score = None
            if validation and run.due(config.eval_nimg, nimg):
                score = validation.score(ema.average, nimg)
            if run.due(config.checkpoint_nimg, nimg) or score is not None:
                run.save(parts, nimg, score)
            if run.should_stop():
                run.preempt(parts, nimg)
    run.finish(parts, nimg)
    clusters.write_tables()
    if run.is_main:
        export_generator(run.dir, run.device)
        write_report(run.dir, config.seed, run.device)
    run.barrier()


if __name__ == "__main__":
    sys.exit(main())
