"""Trains a conditional GAN: ``accelerate launch -m s3gan.train data=DIR/train labels=TABLE method=s3gan run.dir=RUN``.

A run that diverges returns to a healthy checkpoint and continues with other random draws.
"""

import sys

from cluster_jobs.cli.config import command
from cluster_jobs.core.errors import UserError
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.loop import fit
from cluster_jobs.training.rollback import Rollback
from cluster_jobs.training.run import Run
from s3gan.inference.torchscript import export_generator
from s3gan.networks import NETWORKS
from s3gan.pictures.sample_grid import write_report
from s3gan.training.conditioning import open_training_labels, read_conditions, write_network
from s3gan.training.config import TrainConfig
from s3gan.training.game import make_game
from s3gan.training.gan_training import GanTraining
from s3gan.training.health import Limits
from s3gan.training.validation import Validation, read_validation_encoder, training_subset


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
    conditions, encoder = read_conditions(config, shards), read_validation_encoder(config, shards)
    run = Run(config)
    game, ema = make_game(config, run, conditions, shards)
    write_network(run, conditions, shards, game.generator.z_dim, game.discriminator.heads.plan)
    training_labels = open_training_labels(run, conditions, shards)
    validation = Validation(run, encoder, shards, conditions) if encoder else None
    if validation is None:
        run.say("no scores during training: eval_encoder= names no encoder")
    subset = training_subset(config, conditions.method.subset(training_labels.labels), shards)
    training = GanTraining(run, game, ema, conditions, training_labels, shards, subset, validation)
    limits = Limits(config.min_d_loss, config.max_d_loss, config.min_diversity)
    fit(
        run,
        training,
        Rollback(run, limits, times=config.rollback, lr=config.rollback_lr, window=config.health_window),
    )
    training.clusters.write_tables()
    if run.is_main:
        export_generator(run.dir, run.device)
        write_report(run.dir, config.seed, run.device)
    run.barrier()


if __name__ == "__main__":
    sys.exit(main())
