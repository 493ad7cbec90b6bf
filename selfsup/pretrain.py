"""Pretrains an encoder: ``accelerate launch -m selfsup.pretrain data=DIR/train task=rotation run.dir=RUN``.

The learning rate is constant after a warm-up and the result is the moving average of the weights, so that a run has no
planned end: ``total_nimg`` may grow, and what was trained before stays as it was.
"""

import copy
import sys
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor, nn

from cluster_jobs.config import MISSING, TrainKeys, command, key
from cluster_jobs.errors import UserError
from cluster_jobs.optimise import update
from cluster_jobs.run import Run, Stateful
from cluster_jobs.seeds import is_validation
from cluster_jobs.shards import Shards
from cluster_jobs.stream import Batch
from selfsup import augment
from selfsup.batchnorm import synchronise
from selfsup.encoders import ENCODER_FILE, build_encoder, save_encoder, to_input
from selfsup.heldout import HeldOut
from selfsup.pretext import TASKS, PretextModel

Task = Enum("Task", list(TASKS))  # type: ignore[misc]


@dataclass
class PretrainConfig(TrainKeys):
    """Pretrains an encoder on a pretext task. 5 % of the pictures, chosen by their key, are held out to score it."""

    data: str = key(MISSING, "shard directory of the training pictures", path=True)
    task: Task = key(MISSING, "what to learn from unlabelled pictures")  # type: ignore[valid-type]
    encoder: str = key("resnet8", "residual network by name")
    width: int = key(32, "channels of its first stage")
    lr: float = key(2e-3, "learning rate of AdamW after the warm-up")
    weight_decay: float = key(0.05, "of kernels and matrices")
    warmup_nimg: int = key(2_000, "images over which the learning rate rises linearly")
    ema_nimg: int = key(10_000, "half-life of the moving average of the weights, in images; shorter in the beginning")
    shift: int = key(2, "random translation of up to so many pixels")
    flip: bool = key(False, "random horizontal mirrors")
    eval_count: int = key(5_000, "most held-out pictures to score")


@command(PretrainConfig)
def main(config: PretrainConfig) -> None:
    check(config)
    if config.validate:
        return
    shards, task = Shards(config.data), TASKS[config.task.name]()
    run = Run(config)
    held = np.array([is_validation(name) for name in shards.keys(0)], bool)
    encoder = build_encoder(config.encoder, shards.channels, config.width, seed=config.seed)
    raw = PretextModel(encoder, task.heads(encoder.num_features)).to(run.device)
    ema = copy.deepcopy(raw).eval().requires_grad_(False)
    if run.world > 1:
        synchronise(raw, run.reduce)
    model = run.prepare(raw)
    optimizer = torch.optim.AdamW(raw.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    parts: dict[str, Stateful] = {"model": raw, "ema": ema, "optimizer": optimizer}
    stream = run.stream(shards, subset=np.flatnonzero(~held))
    held_out = HeldOut(run, task, ema, shards, np.flatnonzero(held)[: config.eval_count], config.task.name)
    nimg = run.resume(parts)
    for batch in run.timed(stream.batches(nimg)):
        if nimg >= config.total_nimg:
            break
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (nimg + config.batch) / max(config.warmup_nimg, 1))
        inputs, answers = task.examples(augmented(batch, config, run), config.seed, batch.position)
        outputs = model(inputs)
        loss = task.losses(outputs, answers).mean()
        skipped = update(optimizer, loss)
        nimg += config.batch
        average(ema, raw, half_life=min(config.ema_nimg, nimg / 4), nimg=config.batch)
        accuracy = task.correct(outputs, answers).mean()
        run.log(nimg, {"loss": loss, "accuracy": accuracy, "skipped": skipped})
        score = None
        if run.due(config.eval_nimg, nimg):
            score = held_out.error(nimg)
        if run.due(config.sample_nimg, nimg):
            held_out.picture(run.samples_dir / f"{nimg:012d}.png")
        if run.due(config.checkpoint_nimg, nimg):
            run.save(parts, nimg, score)
        if run.should_stop():
            run.preempt(parts, nimg)
    run.finish(parts, nimg)
    held_out.report(nimg)
    if run.is_main:
        save_encoder(run.dir / ENCODER_FILE, ema.encoder)


def check(config: PretrainConfig) -> None:
    """Raises UserError for a value outside its range, as far as that is known before any input exists."""
    build_encoder(config.encoder, 1, config.width)
    for name, least in (("shift", 0), ("warmup_nimg", 0), ("weight_decay", 0), ("ema_nimg", 1), ("eval_count", 1)):
        if getattr(config, name) < least:
            raise UserError(f"{name}={getattr(config, name)}: expected a number of at least {least}")
    if not config.lr > 0:
        raise UserError(f"lr={config.lr}: expected a positive number")


def augmented(batch: Batch, config: PretrainConfig, run: Run) -> Tensor:
    """This rank's pictures (n, C, H, W) in [-1, 1], augmented by its slice of the draws for the global batch."""
    draws = augment.draw(config.batch, config.shift, config.flip, config.seed, "augment", batch.position)
    mine = slice(run.rank * run.local_batch, (run.rank + 1) * run.local_batch)
    return augment.apply(to_input(batch.images, run.device), draws[mine])


@torch.no_grad()
def average(ema: nn.Module, module: nn.Module, half_life: float, nimg: int) -> None:
    """Moves the average, parameters and batch statistics alike, by what ``nimg`` images at this half-life weigh."""
    weight = 1 - 0.5 ** (nimg / half_life)
    torch._foreach_lerp_([*ema.parameters(), *ema.buffers()], [*module.parameters(), *module.buffers()], weight)


if __name__ == "__main__":
    sys.exit(main())
