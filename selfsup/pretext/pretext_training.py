"""Pretraining: implements the loop's `Training` interface by the optimizer steps of a task on augmented pictures.

The learning rate is constant after a warm-up and the result is the moving average of the weights, so ``total_nimg`` can
be raised later without changing the steps already trained.

With ``accumulate``, batch norm normalises each micro-batch alone (over all ranks) and its running moments, which the
average follows, move once per micro-batch.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from cluster_jobs.data.images import to_float
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Batch
from cluster_jobs.distributed.batch_split import contiguous
from cluster_jobs.distributed.batchnorm import synchronise
from cluster_jobs.training.ema import Ema, half_life_decay
from cluster_jobs.training.loop import Attempt
from cluster_jobs.training.memory import Networks, measure, module_bytes, report
from cluster_jobs.training.optimizer_step import Metrics, micro_batches, set_learning_rate, update
from cluster_jobs.training.run import CheckpointScore, Run, Stateful
from selfsup.pretext import augment
from selfsup.pretext.config import PretrainConfig
from selfsup.pretext.draws import Draws
from selfsup.pretext.held_out import HeldOut
from selfsup.pretext.protocol import Gather, OptimizerStep, PretextModule, PretextTask, Views
from selfsup.pretext.relabelling import Relabelling


class PretextTraining:
    """Trains the module of a pretext task.

    Args:
        module: of `task.module`, on the device and not prepared yet.
        trained, held: sample indices to train on, and to score.
    """

    def __init__(
        self,
        run: Run[PretrainConfig],
        task: PretextTask,
        module: PretextModule,
        shards: Shards,
        trained: np.ndarray,
        held: np.ndarray,
    ) -> None:
        self.run, self.config, self.task, self.module = run, run.config, task, module
        self.shards, self.trained = shards, trained
        self.ema = Ema(module, buffers=True)
        self.ema.average.eval()
        self.held_out = HeldOut(run, task, self.ema.average, shards, held)
        self.relabelling = Relabelling(run, task, module, shards, trained)
        self.steps = task.steps(module)
        self.optimizers = {step.name: _optimizer(step, run.config) for step in self.steps}
        self._learning = {step.name: _learning(step.network) for step in self.steps}
        self._followers = _followers(module)
        self._mine = contiguous(self.config.batch, run.rank, run.world)
        self._gather = Gather(run.gather_with_gradients, run.rank)
        for line in self._memory_lines():
            run.say(line)
        if run.world > 1:
            synchronise(module, run.reduce)
        self.prepared = {step.name: run.prepare(step.network) for step in self.steps}

    @property
    def state(self) -> Mapping[str, Stateful]:
        """What a checkpoint holds, by name."""
        optimizers = {f"optimizer_{name}" if name else "optimizer": each for name, each in self.optimizers.items()}
        return {"model": self.module, "ema": self.ema.average, **optimizers, **self.relabelling.state}

    def batches(self, nimg: int, attempt: Attempt) -> Iterator[Batch]:
        """Batches of the pictures to train on, from `nimg` images on."""
        return self.run.stream(self.shards, mine=self._mine, name=attempt.draws, subset=self.trained).batches(nimg)

    def step(self, batch: Batch, nimg: int) -> Mapping[str, Tensor | float]:
        """The task's optimizer steps on the views of a batch."""
        config = self.config
        metrics: dict[str, Tensor | float] = {**self.relabelling.update(nimg)}
        draws = Draws(config.batch, self._mine, (config.seed, "views", batch.position))
        views = self.task.views(self._augmented(batch), draws, self.relabelling.of(batch.indices))
        nimg += config.batch
        rate = config.lr * min(1.0, nimg / max(config.warmup_nimg, 1))
        for step in self.steps:
            measured, kept, skipped = self._update(step, views, rate)
            metrics |= {**measured, f"skipped/{step.name}" if step.name else "skipped": skipped}
        self._after_step(kept, skipped, nimg)
        self.ema.update(self.module, half_life_decay(config.batch, min(config.ema_nimg, nimg / 4)))
        return metrics

    def logged(self, nimg: int, means: Mapping[str, float]) -> None:
        """Nothing adapts to the means."""

    def sample(self, path: Path) -> None:
        """Writes what the averaged module makes of held-out pictures."""
        self.held_out.picture(path)

    def score(self, nimg: int) -> CheckpointScore | None:
        """The task's score of the averaged module on held-out pictures. Every rank must call this."""
        return self.held_out.score(nimg)

    def _augmented(self, batch: Batch) -> Tensor:
        """This rank's pictures (n, C, H, W) in [-1, 1], augmented by its share of the draws for the global batch."""
        config = self.config
        draws = augment.draw(config.batch, config.shift, config.flip, config.seed, "augment", batch.position)
        return augment.apply(to_float(batch.images, self.run.device), draws[self._mine])

    def _update(self, step: OptimizerStep, views: Views, rate: float) -> tuple[Metrics, Views, Tensor]:
        """One optimizer step: its metrics, what its losses kept for `after_step`, and 1 where it was skipped."""
        optimizer, network, kept = self.optimizers[step.name], self.prepared[step.name], []
        count = self.run.local_batch // self.config.accumulate
        self._let_learn(step.name)
        set_learning_rate(optimizer, rate * step.lr_factor)

        def loss(micro_batch: Views) -> tuple[Tensor, Metrics]:
            losses = step.losses(network, micro_batch, self._gather)
            assert losses.per_picture.shape == (count,), f"losses {tuple(losses.per_picture.shape)} of {count} images"
            kept.append([tensor.detach() for tensor in losses.kept])
            return losses.per_picture.mean(), losses.metrics

        metrics, skipped = update(optimizer, network, micro_batches(self.config.accumulate, views), loss)
        return metrics, tuple(torch.cat(tensors) for tensors in zip(*kept, strict=True)), skipped

    @torch.no_grad()
    def _after_step(self, kept: Views, skipped: Tensor, nimg: int) -> None:
        """The task's own moves, undone on the device after a skipped step, whose tensors may not be finite either."""
        before = [tensor.clone() for tensor in self._followers] if kept else []
        self.task.after_step(self.module, kept, self._gather, nimg)
        if kept:
            for now, was in zip(self._followers, before, strict=True):
                now.copy_(torch.where(skipped > 0, was, now))

    def _let_learn(self, name: str) -> None:
        """Lets only the parameters of one step's network ask for gradients: those of others are not computed."""
        if len(self.steps) > 1:
            for step, parameters in self._learning.items():
                for parameter in parameters:
                    parameter.requires_grad_(step == name)

    def _memory_lines(self) -> list[str]:
        """What each optimizer step takes on each process, before the run prepares the networks."""
        count = self.run.local_batch // self.config.accumulate
        named = {step.name or "model": step for step in self.steps}
        players = {name: (step.network, self.optimizers[step.name]) for name, step in named.items()}
        whole = (self.module, self.optimizers[self.steps[0].name])  # for the forward passes, which see all of it
        forwards = {name: partial(self._forward, step.name, count) for name, step in named.items()}
        return report(measure({**players, "": whole}, forwards), count, others=module_bytes(self.module))

    def _forward(self, name: str, count: int, networks: Networks) -> object:
        """The forward pass of an optimizer step on a micro-batch, by an imitation of the module."""
        module = cast(PretextModule, networks[""])
        if self.run.world > 1:
            synchronise(module, torch.clone)  # what it saves is what moments over ranks save
        images = torch.empty(count, *self.shards.shape, device=next(module.parameters()).device)
        targets = torch.zeros(count, dtype=torch.int64, device=images.device) if self.task.relabels else None
        views = self.task.views(images, Draws(count, slice(None), ("memory",)), targets)
        steps = {step.name: step for step in self.task.steps(module)}
        for other in steps.values():
            if other.name != name:
                other.network.requires_grad_(False)
        with self.run.autocast():
            return steps[name].losses(steps[name].network, views, Gather())


def _learning(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _followers(module: nn.Module) -> list[Tensor]:
    """What no optimizer moves: buffers, and parameters that ask for no gradients."""
    return [*module.buffers(), *(parameter for parameter in module.parameters() if not parameter.requires_grad)]


def _optimizer(step: OptimizerStep, config: PretrainConfig) -> torch.optim.Optimizer:
    parameters, lr = _learning(step.network), config.lr * step.lr_factor
    return torch.optim.AdamW(parameters, lr, step.betas, weight_decay=config.weight_decay, fused=True)
