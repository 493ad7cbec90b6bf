"""Pretrains an encoder: ``accelerate launch -m selfsup.pretrain data=DIR/train task=rotation run.dir=RUN``."""

import sys

import numpy as np

from cluster_jobs.cli.config import command
from cluster_jobs.core.seeds import is_validation
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.loop import fit
from cluster_jobs.training.rollback import NoRollback
from cluster_jobs.training.run import Run
from selfsup.encoders.loading import ENCODER_FILE, save_encoder
from selfsup.encoders.resnet import build_encoder
from selfsup.pretext import TASKS
from selfsup.pretext.config import PretrainConfig
from selfsup.pretext.pretext_training import PretextTraining
from selfsup.pretext.protocol import PretextTask


@command(PretrainConfig)
def main(config: PretrainConfig) -> None:
    if not config.validate:
        pretrain(config, TASKS[config.task.name]())


def pretrain(config: PretrainConfig, task: PretextTask) -> None:
    """Trains an encoder on a task, from the newest checkpoint on if there is one, and leaves it for other commands."""
    shards = Shards(config.data)
    shards.check_square()
    run = Run(config)
    held = np.array([is_validation(name) for name in shards.keys(0)], bool)
    encoder = build_encoder(config.encoder, shards.channels, config.width, seed=config.seed)
    module = task.module(encoder).to(run.device)
    trained, scored = np.flatnonzero(~held), np.flatnonzero(held)[: config.eval_count]
    training = PretextTraining(run, task, module, shards, trained, scored)
    nimg = fit(run, training, NoRollback())
    training.held_out.report(nimg)
    if run.is_main:
        save_encoder(run.dir / ENCODER_FILE, training.ema.average.encoder)


if __name__ == "__main__":
    sys.exit(main())
