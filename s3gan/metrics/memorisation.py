"""Whether a generator repeats its training images: how near its samples are to them, in a detector's features."""

from __future__ import annotations

import numpy as np
import torch

from s3gan.metrics.detector import Features
from s3gan.metrics.knn import centred, nearest
from s3gan.metrics.labelled import choose
from s3gan.metrics.score import Score, amount, checked, score_name
from s3gan.metrics.trained import NotAvailable

QUERIES = 2000  # samples, and test images, whose nearest training image is looked for, at most
SHOWN = 5  # samples that are shown as the closest, and as many typical ones
NEIGHBOURS = 5  # training images shown beside each


def nearest_training_score(
    samples: Features, test: Features, train: Features, *, seed: int = 0, device: torch.device | str = "cpu"
) -> Score:
    """How near samples are to training images, against how near unseen real images are.

    The value is the median distance from a sample to its nearest training image, divided by the same median of the test
    images. About 1: samples are as far from the training images as real images are that nobody trained on. Well below
    1: they repeat training images, or show only what is commonest in them (the picture shows which). Above 1: they are
    unlike any real images.

    `shown` in the details lists rows of `samples` with their nearest rows of `train`, nearest first: the samples that
    are closest to a training image, then those around the median; `ratio` is the sample's distance, divided likewise.

    Raises:
        NotAvailable: too few training images, or half of the test images are among them.
        UserError: features of different protocols.
    """
    checked(samples, train)
    checked(test, train)
    if len(train) < NEIGHBOURS:
        raise NotAvailable(f"{len(train)} training images, {NEIGHBOURS} neighbours are looked for")
    rows = choose(len(samples), QUERIES, seed)
    unseen = test.values[choose(len(test), QUERIES, seed)]
    points, queries, others = centred(train.values, samples.values[rows], unseen, device=device)
    indices = nearest(queries, points, NEIGHBOURS)[1]
    distances = _lengths(queries - points[indices[:, 0]])
    usual = float(np.median(_lengths(others - points[nearest(others, points, 1)[1][:, 0]])))
    if usual == 0:
        raise NotAvailable("half of the test images are copies of training images")
    order = np.argsort(distances, kind="stable")
    middle = max(SHOWN, len(order) // 2 - SHOWN // 2)
    shown = [
        {"sample": int(rows[index]), "ratio": float(distances[index]) / usual, "train": indices[index].tolist()}
        for index in [*order[:SHOWN], *order[middle : middle + SHOWN]]
    ]
    typical = float(np.median(distances))
    details = {"sample_distance": typical, "test_distance": usual, "test": len(unseen), "shown": shown}
    name = score_name("nn_ratio", train.protocol.detector, amount(len(rows)))
    return Score(name, typical / usual, len(rows), len(train), train.protocol, train.source["split"], seed, details)


def _lengths(differences: torch.Tensor) -> np.ndarray:
    """(n,) float64 lengths of (n, F): exactly 0 for a copy, which a product of matrices would not give."""
    return differences.norm(dim=1).cpu().numpy()
