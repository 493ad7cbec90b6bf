"""Pretrains an encoder: ``accelerate launch -m selfsup.pretrain data=DIR/train task=rotation run.dir=RUN``.

The learning rate is constant after a warm-up and the result is the moving average of the weights, so that a run has no
planned end: ``total_nimg`` may grow, and what was trained before stays as it was.

With ``accumulate``, batch norm normalises each micro-batch alone (over all ranks) and its running moments, which the
average follows, move once a micro-batch.
"""

import copy
import sys
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from cluster_jobs.cli.config import command
from cluster_jobs.core.seeds import is_validation
from cluster_jobs.data.images import to_float
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Batch
from cluster_jobs.distributed.batch_split import contiguous
from cluster_jobs.distributed.batchnorm import synchronise
from cluster_jobs.training.memory import Networks, measure, module_bytes, report
from cluster_jobs.training.optimizer_step import Metrics, micro_batches, update
from cluster_jobs.training.run import Run, Stateful
from selfsup.encoders.loading import ENCODER_FILE, save_encoder
from selfsup.encoders.resnet import build_encoder
from selfsup.pretext import TASKS, PretextModel, PretextTask, augment
from selfsup.pretext.config import PretrainConfig
from selfsup.pretext.held_out import HeldOut


@command(PretrainConfig)
def main(config: PretrainConfig) -> None:
    if config.validate:
        return
    shards, task = Shards(config.data), TASKS[config.task.name]()
    shards.check_square()
    run = Run(config)
    held = np.array([is_validation(name) for name in shards.keys(0)], bool)
    encoder = build_encoder(config.encoder, shards.channels, config.width, seed=config.seed)
    raw = PretextModel(encoder, task.heads(encoder.num_features)).to(run.device)
    ema = copy.deepcopy(raw).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(raw.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    for line in memory_lines(run, task, raw, optimizer, shards):
        run.say(line)
    if run.world > 1:
        synchronise(raw, run.reduce)
    model = run.prepare(raw)
    parts: dict[str, Stateful] = {"model": raw, "ema": ema, "optimizer": optimizer}
    mine = contiguous(config.batch, run.rank, run.world)
    stream = run.stream(shards, mine=mine, subset=np.flatnonzero(~held))
    held_out = HeldOut(run, task, ema, shards, np.flatnonzero(held)[: config.eval_count], config.task.name)
    nimg = run.resume(parts)
    for batch in run.timed(stream.batches(nimg)):
        if nimg >= config.total_nimg:
            break
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (nimg + config.batch) / max(config.warmup_nimg, 1))
        inputs, answers = task.examples(augmented(batch, config, mine, run.device), config.seed, batch.position)
        micro = micro_batches(config.accumulate, inputs, answers)
        metrics, skipped = update(optimizer, model, micro, partial(task_loss, task, model))
        nimg += config.batch
        average(ema, raw, half_life=min(config.ema_nimg, nimg / 4), nimg=config.batch)
        run.log(nimg, metrics | {"skipped": skipped})
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


def augmented(batch: Batch, config: PretrainConfig, mine: slice, device: torch.device) -> Tensor:
    """This rank's pictures (n, C, H, W) in [-1, 1], augmented by its share of the draws for the global batch."""
    draws = augment.draw(config.batch, config.shift, config.flip, config.seed, "augment", batch.position)
    return augment.apply(to_float(batch.images, device), draws[mine])


def task_loss(task: PretextTask, model: nn.Module, inputs: Tensor, answers: Tensor) -> tuple[Tensor, Metrics]:
    """The mean loss of a micro-batch of examples, and its metrics."""
    outputs = model(inputs)
    loss = task.losses(outputs, answers).mean()
    return loss, {"loss": loss, "accuracy": task.correct(outputs, answers).mean()}


def memory_lines(
    run: Run, task: PretextTask, model: PretextModel, optimizer: torch.optim.Optimizer, shards: Shards
) -> list[str]:
    """What training the model takes on each process, before the run prepares it; the average of its weights with it."""
    count = run.local_batch // run.config.accumulate

    def forward(networks: Networks) -> object:
        if run.world > 1:
            synchronise(networks["model"], torch.clone)  # what it saves is what moments over ranks save
        images = torch.empty(count, *shards.shape, device=model.encoder.stem.weight.device)
        inputs, answers = task.examples(images, "memory")
        with run.autocast():
            return task.losses(networks["model"](inputs), answers)

    footprints = measure({"model": (model, optimizer)}, {"model": forward})
    return report(footprints, count, others=module_bytes(model))


@torch.no_grad()
def average(ema: nn.Module, module: nn.Module, half_life: float, nimg: int) -> None:
    """Moves the average, parameters and batch statistics alike, by what ``nimg`` images at this half-life weigh."""
    weight = 1 - 0.5 ** (nimg / half_life)
    torch._foreach_lerp_([*ema.parameters(), *ema.buffers()], [*module.parameters(), *module.buffers()], weight)


if __name__ == "__main__":
    sys.exit(main())
