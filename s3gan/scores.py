"""The two parts of an evaluation: distances to real images, and accuracies of classifiers trained on the images.

Both may read hidden labels, and nothing from here may steer training, the choice of a checkpoint or a pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.job import Job
from cluster_jobs.shards import Shards
from s3gan.metrics import cas, detector
from s3gan.metrics.classes import budget_labels, pool_classes, renumber
from s3gan.metrics.labelled import Chosen, Labelled, choose, from_shards, joined, relabelled
from s3gan.metrics.trained import NotAvailable
from selfsup.classifier import ClassifierRecipe

REFERENCE_LIMIT = 50_000  # real images behind a distance, at most
Result = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """What every score needs, equal on all ranks. Both parts hold collectives: every rank calls them."""

    train: Shards
    test: Shards
    names: list[str]  # the data's classes
    recipe: ClassifierRecipe  # of the detector and of all classifiers
    seed: int
    cache: Path
    job: Job


def distances(evaluation: Evaluation, images: Labelled, count: int, reference: str) -> Result:
    """Frechet and kernel distance of `count` images, and of as many of the other real split (the floor), to real ones.

    Args:
        reference: the split to measure to, "train" or "test".
    """
    job, folder, seed = evaluation.job, evaluation.cache, evaluation.seed
    judge = detector.make_detector(evaluation.train, evaluation.recipe, seed=seed, cache=folder, job=job)
    splits = {"train": evaluation.train, "test": evaluation.test}

    def real(split: str, limit: int) -> detector.Features:
        return detector.features_of_shards(
            judge, splits[split], split=split, count=limit, seed=seed, cache=folder, job=job
        )

    chosen = choose(len(images), count, seed)
    target = real(reference, REFERENCE_LIMIT)
    measured = {
        "": detector.features_of_pictures(judge, Chosen(images.images, chosen), "samples", job),
        "floor_": real("train" if reference == "test" else "test", len(chosen)),
    }
    results = {}
    for prefix, features in measured.items():
        for score in (detector.frechet_score, detector.kernel_score):
            found = score(features, target, seed=seed)
            results[prefix + found.name] = found.to_dict()
    return results


def accuracies(
    evaluation: Evaluation, images: Labelled, class_names: list[str], table: dict[str, Any], budget: str
) -> Result:
    """Accuracy on real test images of classifiers trained on the pool, the label budget, both, and all real labels.

    Args:
        images: the pool, with classes called `class_names`.
        table: metadata of the label table behind the pool's generator; {} where nobody knows.
        budget: label table of the revealed labels; "" for those in that table.
    """
    train, names = evaluation.train, evaluation.names
    test = from_shards(evaluation.test, np.asarray(evaluation.test.hidden_labels()))

    @cache
    def revealed() -> np.ndarray:
        return budget_labels(budget, table, train, names)

    @cache
    def numbers() -> np.ndarray:
        return pool_classes(class_names, table, train, names, revealed)

    def budget_set() -> Labelled:
        return from_shards(train, revealed())

    def pool_set() -> Labelled:
        return relabelled(images, renumber(images.labels, numbers()))

    sets: dict[str, Callable[[], Labelled]] = {
        "pool": pool_set,
        "budget": budget_set,
        "budget_and_pool": lambda: joined(budget_set(), pool_set()),
        "all": lambda: from_shards(train, np.asarray(train.hidden_labels())),
    }
    results: Result = {}
    for name, make in sets.items():
        try:
            results[name] = cas.train_and_test(
                make(),
                test,
                len(names),
                evaluation.recipe,
                seed=evaluation.seed,
                cache=evaluation.cache,
                job=evaluation.job,
                what=f"classifier of {name.replace('_', ' ')}",
            ).to_dict()
        except NotAvailable as reason:
            results[name] = {"n/a": str(reason)}
    if "n/a" not in results["pool"]:
        dropped = {"dropped_classes": int((numbers() < 0).sum())}
        results["pool"] |= dropped | {"dropped_images": len(images) - results["pool"]["train_count"]}
    return results
