"""Accuracy of the classifiers that mixtures train: on held-out labels, for a choice, and on test images.

The held-out labels used for choosing are split into folds: those of the budget into several, separate validation labels
are one fold. For each fold a classifier is trained on the mixture without the real images of that fold, and tested on
them: every image is tested once, by a classifier that never saw it. All other labels of the training set are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.seeds import key_hash
from cluster_jobs.data.pool import POOL_FILE, read_pool
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from s3gan.metrics.cas import train_and_test
from s3gan.metrics.classes import classes_by_name, renumber
from s3gan.metrics.labelled import Labelled, from_shards
from selfsup.labelling.classifier import ClassifierRecipe


@dataclass(frozen=True)
class MixtureScorer:
    """Trains and tests the classifiers that mixtures are compared by; equal on all ranks."""

    train: Shards
    names: list[str]  # the data's classes
    budget: np.ndarray  # (train.count,) revealed labels, -1 elsewhere
    labels: np.ndarray  # (train.count,) those that decide: the budget's, or others; -1 elsewhere
    folds: np.ndarray  # (train.count,) the fold of each of them, -1 elsewhere
    test: Labelled
    recipe: ClassifierRecipe
    cache: Path
    job: Job

    def on_held_out(self, mixture: Mixture, seed: int) -> float:
        """Accuracy on held-out images of classifiers trained without them."""
        right = 0.0
        for fold in range(int(self.folds.max()) + 1):
            held_out = np.where(self.folds == fold, self.labels, -1)
            right += self._accuracy(mixture.without(held_out >= 0), from_shards(self.train, held_out), seed) * int(
                (held_out >= 0).sum()
            )
        return right / int((self.labels >= 0).sum())

    def on_test(self, mixture: Mixture, seed: int) -> float:
        """Accuracy on real test images of a classifier of the whole mixture (CAS of the pool)."""
        return self._accuracy(mixture.without(np.zeros(len(self.train), bool)), self.test, seed)

    def _accuracy(self, data: Labelled, test: Labelled, seed: int) -> float:
        result = train_and_test(
            data, test, len(self.names), self.recipe, seed=seed, cache=self.cache, job=self.job, what="mixture"
        )
        return result.accuracy


def deal(labels: np.ndarray, keys: list[str], folds: int) -> np.ndarray:
    """Splits the labelled images of each class into folds, in a keyed order: (n,) int64, -1 where there is no label.

    There are as many folds as the smallest class has images, and at most ``folds``.

    Args:
        labels: (n,) integers, -1 for none; keys: n.

    Raises:
        UserError: a class has one image only, so that nothing can be held out.
    """
    fold_of = np.full(len(labels), -1, np.int64)
    present, counts = np.unique(labels[labels >= 0], return_counts=True)
    count = min(folds, *counts.tolist()) if len(counts) else 0
    if count < 2:
        raise UserError(
            f"budget: {count} image(s) of a class: expected 2 or more of each, to hold some out for a choice, "
            "or validation=TABLE, labels set apart"
        )
    for label in present:
        members = np.flatnonzero(labels == label).tolist()
        members.sort(key=lambda index: (key_hash("mixture folds", keys[index]), keys[index]))
        fold_of[members] = np.arange(len(members)) % count
    return fold_of


class Mixture:
    """A pool of cluster_jobs.mix.

    Raises:
        UserError: it is none, its real images are others than those of ``train``, or its classes are unknown.
    """

    def __init__(self, directory: Path, train: Shards, names: list[str]) -> None:
        self.shards = Shards(directory)
        pool = read_pool(self.shards)
        if pool is None:
            raise UserError(f"{directory} holds no {POOL_FILE}: expected a pool of cluster_jobs.mix")
        self.pool = pool
        self.labels = renumber(np.asarray(self.shards.hidden_labels()), classes_by_name(self.shards.classes, names))
        if (self.labels < 0).any():
            raise UserError(
                f"{directory}: its classes ({', '.join(self.shards.classes[:5])}, …) are not all the data's"
            )
        index_of = {key: index for index, key in enumerate(train.keys())}
        self.real = np.full(len(self.shards), -1, np.int64)  # the training image that each real one is
        for index in range(len(self.shards)):
            origin = self.shards.annotation(index) or {}
            if "source" not in origin:
                raise UserError(
                    f"{directory}: {self.shards.key(index)} names no source: expected a pool of cluster_jobs.mix"
                )
            if origin["source"] == "real":
                index_in_train = index_of.get(origin["key"])
                if index_in_train is None:
                    raise UserError(f"{directory}: its real image {origin['key']} is not in {train.directory!r}")
                self.real[index] = index_in_train

    def without(self, gone: np.ndarray) -> Labelled:
        """The mixture without some real images: gone (train.count,) bool."""
        left = ~((self.real >= 0) & gone[self.real])
        return from_shards(self.shards, np.where(left, self.labels, -1))
