"""Trains a refiner.

``accelerate launch -m simgan.train task=digits synthetic=SYN/train real=DIR/train run.dir=RUN``
"""

import sys

from cluster_jobs.cli.config import command
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_json
from cluster_jobs.data.images import shape_text
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.frozen_config import check_facts
from cluster_jobs.training.loop import fit
from cluster_jobs.training.rollback import Rollback
from cluster_jobs.training.run import Run
from simgan.networks.discriminator import patches
from simgan.networks.trained_refiner import describe_network
from simgan.tasks import TASKS
from simgan.training.config import DiscriminatorName, RefinerTrainConfig
from simgan.training.drift import write_drift
from simgan.training.game import make_game, make_schedule, open_encoder
from simgan.training.health import RefinerLimits
from simgan.training.refiner_training import RefinerTraining
from simgan.training.validation import open_validation


@command(RefinerTrainConfig)
def main(config: RefinerTrainConfig) -> None:
    if config.validate:
        return
    synthetic, real = Shards(config.synthetic), Shards(config.real)
    check_domains(config, synthetic, real)
    psi_encoder = open_encoder("psi_encoder", config.psi_encoder, synthetic)
    eval_encoder = open_encoder("eval_encoder", config.eval_encoder, synthetic)
    run = Run(config)
    if run.local_batch % 2:
        raise UserError(f"batch={config.batch}: expected an even share for each of {run.world} processes")
    network = describe_network(config, synthetic, real, psi_encoder)
    check_facts(run.dir / "network.json", network, "other data or another encoder")
    run.barrier()  # every rank has compared before one writes
    run.on_main(lambda: write_json(run.dir / "network.json", network))
    game, ema = make_game(config, synthetic, psi_encoder, run)
    validation = open_validation(run, synthetic, real, eval_encoder)
    training = RefinerTraining(run, game, ema, make_schedule(config), synthetic, real, validation)
    limits = RefinerLimits(config.min_d_loss, config.min_diversity)
    rollback = Rollback(run, limits, times=config.rollback, lr=config.rollback_lr, window=config.health_window)
    nimg = fit(run, training, rollback)
    if run.is_main:
        training.sample(run.samples_dir / f"{nimg:012d}.png")
        write_drift(run.dir, config.max_change)


def check_domains(config: RefinerTrainConfig, synthetic: Shards, real: Shards) -> None:
    """Raises UserError if the data sets are not compatible, R cannot fold the images, or D would see a single patch."""
    TASKS[config.task].check(synthetic, real)
    if synthetic.height % config.fold or synthetic.width % config.fold:
        sides = shape_text(synthetic.shape[1:])
        raise UserError(f"fold={config.fold}: expected a divisor of the images' height and width, {sides}")
    size = synthetic.height, synthetic.width
    if config.discriminator is DiscriminatorName.patch and patches(config.patches.name, size) == (1, 1):
        raise UserError(
            f"patches={config.patches.name}: D would see images of {shape_text(size)} as one patch; "
            "expected larger images, patches=gaze, or discriminator=image"
        )


if __name__ == "__main__":
    sys.exit(main())
