"""Classification accuracy score: train on a pool, test on real images (Ravuri & Vinyals 2019, arXiv 1905.10887)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.distributed.job import Job
from s3gan.metrics.labelled import Labelled
from s3gan.metrics.trained import NotAvailable, trained_classifier
from selfsup.labelling.classifier import ClassifierRecipe, blocks, predict


@dataclass(frozen=True)
class CasResult:
    """How a classifier does on real test images."""

    accuracy: float  # share of the test images that it gets right
    per_class: list[float | None]  # (classes,) recall; None for a class without test images
    confusion: list[list[int]]  # [true class][predicted class], counts
    train_count: int
    test_count: int
    classifier: str  # hash of its weights

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_and_test(
    train: Labelled,
    test: Labelled,
    classes: int,
    recipe: ClassifierRecipe,
    *,
    seed: int,
    cache: Path,
    job: Job,
    what: str = "classifier",
) -> CasResult:
    """Trains on `train` (or takes the classifier from the cache) and tests on `test`. Every rank calls this.

    Raises:
        NotAvailable: `train` has images of fewer than two classes, or `test` has none.
    """
    if not len(test):
        raise NotAvailable("no test image has a label")
    trained = trained_classifier(train, classes, recipe, seed=seed, cache=cache, job=job, what=what)
    predicted = predict(trained.classifier, blocks(test.images), job.device).argmax(1)
    confusion = confusion_matrix(test.labels, predicted.numpy(), classes)
    return CasResult(*accuracies(confusion), confusion.tolist(), len(train), len(test), trained.hash[:12])


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) int64 counts: rows true, columns predicted."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (true, predicted), 1)
    return matrix


def accuracies(confusion: np.ndarray) -> tuple[float, list[float | None]]:
    """The share of all that is right, and that of each class (None where the class has no samples)."""
    right, counts = np.diag(confusion), confusion.sum(1)
    per_class = [int(r) / int(n) if n else None for r, n in zip(right, counts, strict=True)]
    return int(right.sum()) / int(counts.sum()), per_class
