"""Images as a detector sees them: features of real images and of samples, each extracted once per evaluation."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from s3gan.metrics.detector import Detector, Features, features_of_pictures, features_of_shards
from s3gan.metrics.labelled import Labelled, PictureSubset, choose
from selfsup.labelling.classifier import ClassifierRecipe

REFERENCE_LIMIT = 50_000  # real images behind a distance, at most
Made = TypeVar("Made")


@dataclass(frozen=True)
class Evaluation:
    """What every score needs, equal on all ranks."""

    train: Shards
    test: Shards
    names: list[str]  # the data's classes
    recipe: ClassifierRecipe  # of the default detector and of all classifiers
    seed: int
    cache: Path
    job: Job


class FeatureSpace:
    """The features that the scores of an evaluation share. Every rank must make the same calls.

    Args:
        open_detector: called on every rank when the first features are wanted.
        count: samples behind a distance, and real images of the other split behind the floor.
        reference: the split to measure to, "train" or "test".
        searched: training images among which the nearest are looked for, at most; 0 where nobody looks.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        open_detector: Callable[[], Detector],
        *,
        count: int,
        reference: str,
        searched: int,
    ) -> None:
        self.evaluation, self.open_detector = evaluation, open_detector
        self.seed, self.device = evaluation.seed, evaluation.job.device
        self.count, self.reference_split, self.searched = count, reference, searched
        self.floor_split = "train" if reference == "test" else "test"
        self._made: dict[Hashable, Any] = {}
        self._last: tuple[str, Features] | None = None

    @cached_property
    def detector(self) -> Detector:
        return self.open_detector()

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` returns, made when it is first asked for: whatever does not depend on the samples."""
        if key not in self._made:
            self._made[key] = make()
        return cast(Made, self._made[key])

    def shards(self, split: str) -> Shards:
        return self.evaluation.train if split == "train" else self.evaluation.test

    def rows(self, split: str, limit: int) -> np.ndarray:
        """At most `limit` images of a split, a keyed choice: their indices, ascending."""
        return choose(len(self.shards(split)), limit, self.seed)

    def real(self, split: str, limit: int) -> Features:
        """Features of at most `limit` images of a split; where those of all are wanted anyway, their rows."""
        if split == "train" and limit < len(self.shards(split)) <= self.searched:
            return self.real(split, self.searched).rows(self.rows(split, limit))
        return self.once(("real", split, limit), lambda: self._extract(split, limit))

    def _extract(self, split: str, limit: int) -> Features:
        cache, job = self.evaluation.cache, self.evaluation.job
        shards, seed = self.shards(split), self.seed
        return features_of_shards(self.detector, shards, split=split, count=limit, seed=seed, cache=cache, job=job)

    @property
    def reference(self) -> Features:
        """The real images that distances are measured to."""
        return self.real(self.reference_split, REFERENCE_LIMIT)

    def floor(self, count: int) -> Features:
        """`count` real images of the other split."""
        return self.real(self.floor_split, count)

    def scored(self, images: Labelled) -> np.ndarray:
        """Which of the images are scored: indices, ascending."""
        return choose(len(images), self.count, self.seed)

    def samples(self, images: Labelled) -> Features:
        """Features of the scored images; those of the last draw are kept."""
        if self._last is None or self._last[0] != images.identity:
            pictures = PictureSubset(images.images, self.scored(images))
            features = features_of_pictures(self.detector, pictures, "samples", self.evaluation.job)
            self._last = images.identity, features
        return self._last[1]
