"""Rejection: a generated image enters a pool only where it is good enough by every criterion of its class.

A criterion measures an image, higher is better, and accepts it at or above a per-class threshold. A sample of the pool
is the first of its attempts that all criteria keep: each attempt has noise of its own, keyed by sample and attempt, so
that neither the number of processes nor the order of work decides what is kept. Attempt 0 is the image that a pool
without criteria has there.

What is measured are the 8-bit images that the pool stores. Thresholds are computed from separate calibration images
that never enter a pool, keyed by class, so that they depend on nothing but the generator, the criteria and the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster_jobs.core import seeds
from cluster_jobs.data.images import to_float
from cluster_jobs.distributed.job import Job
from s3gan.inference.sampling import draw_noise, make_block
from s3gan.networks import Discriminator, Generator
from selfsup.labelling.classifier import Classifier

Attempt = tuple[int, int]  # a sample's index, and which of its draws, from 0


@dataclass(frozen=True)
class Criterion:
    """`measure` maps images (N, C, H, W) float32 in [-1, 1] and their classes (N,) int64 to (N,) float32; `threshold`
    maps the measures (n,) of one class's calibration draws to the least that is kept."""

    name: str
    measure: Callable[[Tensor, Tensor], Tensor]
    threshold: Callable[[Tensor], float]


def discriminator_score(discriminator: Discriminator, share: float) -> Criterion:
    """The discriminator's score of the image in its class (with a projection head that of the pair); the threshold
    keeps the best `share` of the calibration draws, ⌈share·n⌉ of n."""

    def threshold(values: Tensor) -> float:
        return float(values.sort(descending=True).values[math.ceil(share * len(values)) - 1])

    return Criterion("score", lambda images, labels: discriminator(images, labels).score.float(), threshold)


def classifier_agreement(classifier: Classifier, least: float) -> Criterion:
    """The probability that the classifier gives to the image's class where that is its answer, and -1 where its answer
    is another class; the threshold is `least`."""

    def measure(images: Tensor, labels: Tensor) -> Tensor:
        probabilities = classifier(images).float().softmax(1)
        own = probabilities.gather(1, labels[:, None]).squeeze(1)
        return torch.where(probabilities.argmax(1) == labels, own, -1.0)

    return Criterion("agreement", measure, lambda values: least)


@dataclass(frozen=True)
class Maker:
    """Makes attempts and measures them, in blocks of one size on the device."""

    generator: Generator
    criteria: Sequence[Criterion]
    seed: int
    truncation: float
    block: int
    device: torch.device

    @torch.no_grad()
    def make(self, attempts: Sequence[Attempt], labels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Images uint8 (n, C, H, W) and their measures (criteria, n) float32, both on the device, of at most `block`
        attempts at samples of the classes `labels` (n,)."""
        indices, numbers = [index for index, _ in attempts], [number for _, number in attempts]
        noise = draw_noise(self.seed, indices, self.generator.z_dim, self.truncation, numbers)
        chosen = torch.from_numpy(labels.astype(np.int64))
        images, padded = make_block(self.generator, noise, chosen, self.block, self.device)
        seen = to_float(images, self.device)
        values = [criterion.measure(seen, padded)[: len(attempts)] for criterion in self.criteria]
        return images[: len(attempts)], torch.stack(values) if values else torch.empty(0, len(attempts))

    def for_calibration(self) -> Maker:
        """A maker of calibration images, which never enter a pool."""
        return replace(self, seed=seeds.derive_seed(self.seed, "calibration"))


def accept(values: Tensor, thresholds: Tensor, labels: np.ndarray) -> np.ndarray:
    """Which of n images reach every threshold, bool (n,); values (criteria, n), thresholds (criteria, classes)."""
    return (values.cpu() >= thresholds[:, torch.from_numpy(labels.astype(np.int64))]).all(0).numpy()


@dataclass(frozen=True)
class Calibration:
    """`thresholds` (criteria, classes) float32, infinite for a class that is not wanted; `kept` (classes,) float64,
    the share of each class's calibration draws that all criteria keep together."""

    thresholds: Tensor
    kept: np.ndarray


def calibrate(maker: Maker, wanted: np.ndarray, count: int, job: Job) -> Calibration:
    """Measures `count` draws of each class that `wanted` (classes,) bool names. Every rank must call this."""
    maker, classes = maker.for_calibration(), np.flatnonzero(wanted)
    draws = np.concatenate([np.arange(number * count, (number + 1) * count) for number in classes])
    step, measured = maker.block * job.world, []
    for start in job.track(range(0, len(draws), step), len(draws), "images", "calibrating the filters", step):
        mine = draws[start + job.rank * maker.block :][: maker.block]
        values = torch.empty(len(maker.criteria), 0, device=job.device)
        if len(mine):
            values = maker.make([(index, 0) for index in mine.tolist()], mine // count)[1]
        measured.append(job.gather(values.T.contiguous()).cpu())
    values = torch.cat(measured).T.unflatten(1, (len(classes), count))
    thresholds = torch.full((len(maker.criteria), len(wanted)), math.inf)
    for row, criterion in enumerate(maker.criteria):
        thresholds[row, classes] = torch.tensor([criterion.threshold(part) for part in values[row]])
    kept = np.zeros(len(wanted))
    kept[classes] = (values >= thresholds[:, classes, None]).all(0).double().mean(1).numpy()
    return Calibration(thresholds, kept)


class Exhausted(Exception):
    """All attempts that a sample may have were rejected."""

    def __init__(self, index: int, attempts: int) -> None:
        super().__init__(index, attempts)
        self.index, self.attempts = index, attempts


@dataclass(frozen=True)
class RejectionSampler:
    """The samples of a pool whose classes are `labels` (count,)."""

    maker: Maker
    thresholds: Tensor
    labels: np.ndarray
    limit: int  # attempts at one sample

    def samples(self, indices: range) -> Iterator[tuple[int, int, np.ndarray]]:
        """Each sample's index, in order, the number of its attempt that is kept, and its image uint8 (C, H, W).

        A block is filled with attempts at different samples, and at the end, when there are too few of those, with
        several attempts at the same ones. Holds at most the images of `indices`.

        Raises:
            Exhausted: a sample has no good attempt among `limit`.
        """
        fresh, block = iter(indices), self.maker.block
        pending: dict[int, int] = {}  # sample → its next attempt
        done: dict[int, tuple[int, np.ndarray]] = {}
        for head in indices:
            while head not in done:
                pending |= dict.fromkeys(islice(fresh, block - len(pending)), 0)
                attempts = _fill(pending, block)
                for (index, number), image in zip(attempts, self._try(attempts), strict=True):
                    if index not in pending:
                        continue  # an earlier attempt in this block is kept
                    if image is not None:
                        del pending[index]
                        done[index] = number, image
                    elif number + 1 >= self.limit:
                        raise Exhausted(index, number + 1)
                    else:
                        pending[index] = number + 1
            yield head, *done.pop(head)

    def _try(self, attempts: Sequence[Attempt]) -> list[np.ndarray | None]:
        """The image of each attempt that is kept; the others never leave the device."""
        labels = self.labels[[index for index, _ in attempts]]
        images, values = self.maker.make(attempts, labels)
        accepted = accept(values, self.thresholds, labels)
        kept = iter(images[torch.from_numpy(accepted).to(images.device)].cpu().numpy())
        return [next(kept) if good else None for good in accepted]


def _fill(pending: dict[int, int], block: int) -> list[Attempt]:
    """The next attempt at every pending sample, and further ones at those that failed before, up to a block."""
    again = [(index, number) for index, number in pending.items() if number]
    further = ((index, number + more) for more in range(1, block) for index, number in again)
    return [*pending.items(), *islice(further, block - len(pending))]


def examples(maker: Maker, thresholds: Tensor, label: int, count: int, most: int) -> tuple[list[Any], list[Any]]:
    """The first `most` of a class's `count` calibration draws that are kept, and the first that are rejected: images
    uint8 (C, H, W)."""
    maker = maker.for_calibration()
    kept: list[Any] = []
    rejected: list[Any] = []
    for start in range(label * count, (label + 1) * count, maker.block):
        draws = range(start, min(start + maker.block, (label + 1) * count))
        labels = np.full(len(draws), label)
        images, values = maker.make([(index, 0) for index in draws], labels)
        for image, good in zip(images.cpu().numpy(), accept(values, thresholds, labels), strict=True):
            (kept if good else rejected).append(image)
        if min(len(kept), len(rejected)) >= most:
            break
    return kept[:most], rejected[:most]
