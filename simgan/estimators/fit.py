"""Trains estimators deterministically and caches them under a digest of everything that determines them.

Every rank trains the same estimator and then takes the main rank's weights, as for the classifiers that compute scores.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cluster_jobs.cli.config import to_dict
from cluster_jobs.core.seeds import derive_seed, generator
from cluster_jobs.data.images import to_float
from cluster_jobs.distributed.job import Job
from cluster_jobs.training.checkpoint import State
from s3gan.metrics.labelled import digest
from s3gan.metrics.trained import cached_state
from simgan.estimators.recipe import EstimatorRecipe

BLOCK = 250  # images per forward pass, always (the last is padded): results depend on the size of a batch


class Problem(Protocol):
    """What an estimator estimates: its network, loss and augmentation."""

    name: str

    def build(self, shape: tuple[int, int, int], width: float) -> nn.Module:
        """The network for images (C, H, W); ``width`` is a multiple of the published one."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of each image, (n,)."""

    def augment(self, images: Tensor, targets: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Randomly augmented images (n, C, H, W) float32 in [-1, 1] with their targets (n, …), on the device."""


@dataclass(frozen=True)
class Annotated:
    """Images (N, C, H, W) uint8 and their targets (N, …) float32."""

    images: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def first(self, count: int) -> "Annotated":
        """The first samples."""
        return Annotated(self.images[:count], self.targets[:count])


def trained_estimator(
    problem: Problem, data: Annotated, recipe: EstimatorRecipe, *, seed: int, cache: Path, job: Job, what: str
) -> nn.Module:
    """The estimator of ``recipe`` and ``seed`` for ``data``, from the cache or trained now. Every rank must call this.

    Args:
        what: the name of the progress bar.
    """
    shape = data.images.shape[1], data.images.shape[2], data.images.shape[3]
    protocol = {
        "problem": problem.name,
        "train": digest(data.images, data.targets),
        "recipe": to_dict(recipe),
        "seed": seed,
    }

    def train_it() -> State:
        return fit(problem, data, recipe, seed=seed, job=job, what=what).state_dict()

    state, _ = cached_state(cache, f"estimator-{problem.name}", protocol, train_it, job)
    network = problem.build(shape, recipe.width)
    network.load_state_dict(state)
    return on(job.device, network).eval().requires_grad_(False)


def fit(problem: Problem, data: Annotated, recipe: EstimatorRecipe, *, seed: int, job: Job, what: str) -> nn.Module:
    """Trains an estimator with Adam and a cosine learning rate; deterministic in its arguments."""
    shape = data.images.shape[1], data.images.shape[2], data.images.shape[3]
    network = problem.build(shape, recipe.width)
    initialise(network, seed)
    network = on(job.device, network).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    )
    targets = torch.from_numpy(data.targets)
    batches = draws(len(data), recipe, seed)
    for step in job.track(range(recipe.steps), recipe.steps * recipe.batch, "images", what, recipe.batch):
        chosen = next(batches)
        images = to_float(torch.from_numpy(data.images[chosen]), job.device)
        answers = targets[chosen].to(job.device)
        random = generator(job.device, seed, "estimator augmentation", step)
        images, answers = problem.augment(images, answers, random)
        loss = problem.loss(network(images), answers).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def on(device: torch.device, network: nn.Module) -> nn.Module:
    """The network on a device, in channels-last layout: faster convolutions on CPUs and on tensor cores."""
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def draws(count: int, recipe: EstimatorRecipe, seed: int) -> Iterator[np.ndarray]:
    """The samples of each step, (batch,) int64: epoch after epoch of all samples, each in a seeded order."""
    waiting, epoch = np.zeros(0, np.int64), 0
    while True:
        while len(waiting) < recipe.batch:
            order = np.random.default_rng(derive_seed(seed, "estimator", epoch)).permutation(count)
            waiting, epoch = np.concatenate([waiting, order]), epoch + 1
        yield waiting[: recipe.batch]
        waiting = waiting[recipe.batch :]


class ZeroConv(nn.Conv2d):
    """A convolution with zero initial weights, for heat maps and other outputs that are zero almost everywhere."""


def initialise(network: nn.Module, seed: int) -> None:
    """Initialises weights as He et al. 2015, each with a seed of its name; biases and ZeroConv are zero."""
    for name, child in network.named_modules():
        if isinstance(child, ZeroConv):
            nn.init.zeros_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.Conv2d | nn.Linear):
            draw = generator("cpu", seed, "estimator", name)
            nn.init.kaiming_normal_(child.weight, nonlinearity="relu", generator=draw)
            if child.bias is not None:
                nn.init.zeros_(child.bias)


@torch.no_grad()
def predict(network: nn.Module, images: np.ndarray, device: torch.device, size: int = BLOCK) -> np.ndarray:
    """An estimator's outputs (N, …) float32 for images (N, C, H, W) uint8, in batches of ``size``."""
    outputs = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        block = np.zeros((size, *images.shape[1:]), np.uint8)
        block[: len(part)] = part
        outputs.append(network(to_float(torch.from_numpy(block), device))[: len(part)].cpu().numpy())
    return np.concatenate(outputs)
