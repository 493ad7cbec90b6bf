"""A detector: the frozen network on whose features images are compared. Every score records how it was computed.

The default is a classifier trained on the real training images with all their labels; pretrained.py loads other
detectors. Evaluation may read hidden labels, so training must not use these results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import to_float
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from cluster_jobs.training.checkpoint import State
from s3gan.metrics.labelled import choose, from_shards
from s3gan.metrics.trained import cached_state, trained_classifier
from selfsup.labelling.classifier import ClassifierRecipe, Pictures, ShardPictures

BLOCK = 250  # images per forward pass, always (the last one padded), so that features do not depend on the world size
OWN_SIZE = "own size, scaled to [-1, 1]"


class DetectorName(Enum):
    """The detectors by name; a score's name contains that of its detector."""

    classifier = "classifier"
    encoder = "encoder"
    inception = "inception"
    dinov2 = "dinov2"


@dataclass(frozen=True)
class Protocol:
    """All that makes features comparable; scores of two protocols never are."""

    detector: str
    hash: str  # SHA-256 of the detector's weights
    preprocessing: str  # what happens to pictures before the network sees them

    def __str__(self) -> str:
        return f"{self.detector} {self.hash[:12]} ({self.preprocessing})"


@dataclass(frozen=True)
class Detector:
    """A frozen network: `network` takes pictures (n, C, H, W) uint8 on its device to features (n, F)."""

    protocol: Protocol
    network: Callable[[Tensor], Tensor]
    block: int = BLOCK
    last_layer: np.ndarray | None = None  # (classes, F) that takes features to logits, where a score needs them


@dataclass(frozen=True)
class Features:
    """A detector's features (N, F) float32 of one set of images in index order, and what images those are."""

    values: np.ndarray
    protocol: Protocol
    source: dict[str, Any]  # "split" and what else identifies the images

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, chosen: np.ndarray) -> Features:
        """The features of some of the images."""
        return Features(self.values[chosen], self.protocol, self.source)


def number_of_classes(shards: Shards) -> int:
    """Classes of a data set, also where its index names fewer than its labels use (or none)."""
    labels = shards.hidden_labels()
    return max(len(shards.classes), int(labels.max()) + 1 if len(labels) else 0)


def class_names(shards: Shards) -> list[str]:
    """The names of a data set's classes; a class without one is called by its number."""
    return [*shards.classes, *map(str, range(len(shards.classes), number_of_classes(shards)))]


def make_detector(train: Shards, recipe: ClassifierRecipe, *, seed: int, cache: Path, job: Job) -> Detector:
    """The detector of a data set: the classifier of its training images with all their labels. Every rank calls
    this.

    Raises:
        NotAvailable: the training images have no labels, or of one class only.
    """
    data = from_shards(train, np.asarray(train.hidden_labels()))
    trained = trained_classifier(
        data, number_of_classes(train), recipe, seed=seed, cache=cache, job=job, what="detector"
    )
    protocol = Protocol(DetectorName.classifier.name, trained.hash, OWN_SIZE)
    return Detector(protocol, lambda images: trained.classifier.features(to_float(images, job.device)))


def features_of_shards(
    detector: Detector, shards: Shards, *, split: str, count: int, seed: int, cache: Path, job: Job
) -> Features:
    """Features of at most `count` samples (0: all; a keyed choice), from the cache or computed and kept there.

    Every rank calls this. `split` is what the images are called in scores, for example "test".
    """
    indices = choose(len(shards), count, seed)
    source = {"split": split, "data": shards.fingerprint, "count": len(indices), "seed": seed}

    def make() -> State:
        return {"features": torch.from_numpy(extract(detector, ShardPictures(shards, indices), job, split))}

    state, _ = cached_state(cache, "features", {**asdict(detector.protocol), **source}, make, job)
    return Features(state["features"].numpy(), detector.protocol, source)


def features_of_pictures(detector: Detector, pictures: Pictures, split: str, job: Job) -> Features:
    """Features of pictures that every rank can read; nothing is cached. Every rank calls this."""
    return Features(extract(detector, pictures, job, split), detector.protocol, {"split": split})


@torch.no_grad()
def extract(detector: Detector, pictures: Pictures, job: Job, what: str) -> np.ndarray:
    """The detector's features (N, F) float32 of N pictures, on every rank. Every rank must call this."""
    size, gathered = detector.block, []
    step = size * job.world
    for start in job.track(range(0, len(pictures), step), len(pictures), "images", f"features of {what}", step):
        first = start + job.rank * size
        images = torch.as_tensor(pictures[np.arange(first, max(first, min(first + size, len(pictures))))])
        block = images.new_zeros((size, *images.shape[1:]))
        block[: len(images)] = images
        with torch.jit.optimized_execution(False):  # a script that is rewritten as it warms up rounds differently
            features = detector.network(block.to(job.device))[: len(images)]
        gathered.append(job.gather(features.float().contiguous()).cpu().numpy())
    values = np.concatenate(gathered)
    if not np.isfinite(values).all():
        raise UserError(f"the features of the detector {detector.protocol} are not finite: take another one")
    return values
