"""Distances on the features of a detector: a classifier trained on the real training images with all their labels.

A distance is named by its protocol: `fd_classifier10k` is the Frechet distance on the detector's penultimate
features between 10,000 images and real ones. It compares with other scores of the same detector (its hash stands
beside the score) and is never FID. Evaluation may read hidden labels; nothing from here may steer training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster_jobs.checkpoint import State
from cluster_jobs.errors import UserError
from cluster_jobs.job import Job
from cluster_jobs.shards import Shards
from s3gan.metrics.frechet import FeatureStatistics, distance_between
from s3gan.metrics.kernel import kernel_distance
from s3gan.metrics.labelled import choose, from_shards
from s3gan.metrics.trained import Trained, cached_state, trained_classifier
from selfsup.classifier import ClassifierRecipe, Pictures, ShardPictures
from selfsup.encoders import to_input

BLOCK = 250  # images a forward pass, always (the last one padded), so that features do not depend on the world size


@dataclass(frozen=True)
class Features:
    """A detector's features (N, F) float32 of one set of images in index order, and what images those are."""

    values: np.ndarray
    detector: str  # the detector's hash
    source: dict[str, Any]  # "split" and what else identifies the images


@dataclass(frozen=True)
class Score:
    """A number and the protocol that it belongs to."""

    name: str
    value: float
    samples: int
    reference: int
    detector: str
    split: str  # of the reference
    seed: int
    sd: float | None = None  # over the subsets of a kernel distance
    subsets: int | None = None
    subset_size: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def number_of_classes(shards: Shards) -> int:
    """Classes of a data set, also where its index names fewer than its labels use (or none)."""
    labels = shards.hidden_labels()
    return max(len(shards.classes), int(labels.max()) + 1 if len(labels) else 0)


def class_names(shards: Shards) -> list[str]:
    """The names of a data set's classes; a class without one is called by its number."""
    return [*shards.classes, *map(str, range(len(shards.classes), number_of_classes(shards)))]


def make_detector(train: Shards, recipe: ClassifierRecipe, *, seed: int, cache: Path, job: Job) -> Trained:
    """The detector of a data set: the classifier of its training images with all their labels. Every rank calls
    this.

    Raises:
        NotAvailable: the training images have no labels, or of one class only.
    """
    data = from_shards(train, np.asarray(train.hidden_labels()))
    return trained_classifier(data, number_of_classes(train), recipe, seed=seed, cache=cache, job=job, what="detector")


def features_of_shards(
    detector: Trained, shards: Shards, *, split: str, count: int, seed: int, cache: Path, job: Job
) -> Features:
    """Features of at most `count` samples (0: all; a keyed choice), from the cache or computed and kept there.

    Every rank calls this. `split` is what the images are called in scores, for example "test".
    """
    indices = choose(len(shards), count, seed)
    source = {"split": split, "data": shards.fingerprint, "count": len(indices), "seed": seed}

    def make() -> State:
        return {"features": torch.from_numpy(extract(detector, ShardPictures(shards, indices), job, split))}

    state, _ = cached_state(cache, "features", {"detector": detector.hash, **source}, make, job)
    return Features(state["features"].numpy(), detector.hash, source)


def features_of_pictures(detector: Trained, pictures: Pictures, split: str, job: Job) -> Features:
    """Features of pictures that every rank can read; nothing is cached. Every rank calls this."""
    return Features(extract(detector, pictures, job, split), detector.hash, {"split": split})


@torch.no_grad()
def extract(detector: Trained, pictures: Pictures, job: Job, what: str) -> np.ndarray:
    """The detector's features (N, F) float32 of N pictures, on every rank. A collective a step."""
    step, found = BLOCK * job.world, []
    for start in job.track(range(0, len(pictures), step), len(pictures), "images", f"features of {what}", step):
        first = start + job.rank * BLOCK
        images = torch.as_tensor(pictures[np.arange(first, max(first, min(first + BLOCK, len(pictures))))])
        block = images.new_zeros((BLOCK, *images.shape[1:]))
        block[: len(images)] = images
        features = detector.classifier.features(to_input(block, job.device))[: len(images)]
        found.append(job.gather(features.float().contiguous()).cpu().numpy())
    values = np.concatenate(found)
    if not np.isfinite(values).all():
        raise UserError("the detector's features are not finite: train it with another recipe")
    return values


def distance_name(kind: str, count: int) -> str:
    """`fd_classifier10k` for whole thousands, else `fd_classifier360`."""
    return f"{kind}_classifier{f'{count // 1000}k' if count and count % 1000 == 0 else count}"


def frechet_score(samples: Features, reference: Features, *, seed: int = 0) -> Score:
    """The Frechet distance; the count in its name is that of the smaller side.

    Raises:
        UserError: the two come from different detectors, or a side has fewer than 2 images.
    """
    value = distance_between(*(FeatureStatistics.of(side.values) for side in _checked(samples, reference)))
    return _score("fd", value, samples, reference, seed)


def kernel_score(
    samples: Features, reference: Features, *, seed: int = 0, subsets: int = 100, size: int = 1000
) -> Score:
    """The kernel distance: the mean over keyed subsets, with its standard deviation. Raises as `frechet_score`."""
    _checked(samples, reference)
    value, sd, used = kernel_distance(samples.values, reference.values, subsets=subsets, size=size, seed=seed)
    return _score("kd", value, samples, reference, seed, sd=sd, subsets=subsets, subset_size=used)


def _checked(samples: Features, reference: Features) -> tuple[Features, Features]:
    if samples.detector != reference.detector:
        raise UserError(
            f"features of detector {samples.detector[:12]} cannot be scored against a reference of detector "
            f"{reference.detector[:12]}: extract both with the same one"
        )
    if min(len(samples.values), len(reference.values)) < 2:
        raise UserError("a distance needs at least 2 images a side")
    return samples, reference


def _score(kind: str, value: float, samples: Features, reference: Features, seed: int, **more: Any) -> Score:
    counts = len(samples.values), len(reference.values)
    name = distance_name(kind, min(counts))
    return Score(name, value, *counts, reference.detector[:12], reference.source["split"], seed, **more)
