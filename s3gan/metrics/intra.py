"""The intra-class Frechet distance (Miyato & Koyama 2018, arXiv 1802.05637, section 4): the mean over classes.

It sees what the plain distance is blind to: images of the wrong class, and little variety within a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from s3gan.metrics.detector import Features
from s3gan.metrics.frechet import distance_of_samples
from s3gan.metrics.labelled import choose
from s3gan.metrics.score import Score, amount, checked, score_name
from s3gan.metrics.trained import NotAvailable

MINIMUM = 20  # images of a class on each side; below that a covariance says nothing


@dataclass(frozen=True)
class LabelledFeatures:
    """Features with the classes of their images, numbers of the data's classes (N,) int64, -1 for none."""

    features: Features
    labels: np.ndarray
    what: str  # "generated", "real test"


def intra_scores(
    samples: LabelledFeatures,
    reference: LabelledFeatures,
    floor: LabelledFeatures | None,
    names: Sequence[str],
    *,
    count: int = 0,
    seed: int = 0,
) -> dict[str, Score]:
    """The mean over classes of the Frechet distance between generated and real images of a class; the same of `floor`.

    The estimate of a Frechet distance is too large by about a constant divided by the images behind it (Chong & Forsyth
    2020, arXiv 1911.07023), and a class has few. So every class has as many images on every side, which the name
    states: `intra_fd_classifier10x900` is the mean over 10 classes of 900 images. Compare scores of one name only, and
    see how much of a score the floor has, real images of the other split, whose bias is alike.

    Args:
        samples: generated images by the class that they were conditioned on.
        floor: real images of another split; None, or without labels, for no floor.
        count: images per class; 0 takes as many as the smallest class has of those with at least `MINIMUM`. A class
            with fewer on any side is left out, and `left_out` of the score says why.

    Returns:
        the scores by name, `floor_NAME` among them. Their `per_class` is None where a class was left out.

    Raises:
        NotAvailable: no class has enough images.
    """
    checked(samples.features, reference.features)
    if floor is not None and (floor.labels < 0).all():
        floor = None
    sides = [side for side in (samples, reference, floor) if side is not None]
    counts = np.stack([np.bincount(side.labels[side.labels >= 0], minlength=len(names)) for side in sides])
    least, needed = counts.min(0), count or MINIMUM
    kept = np.flatnonzero(least >= needed)
    left_out = {
        names[number]: ", ".join(f"{counts[index, number]} {side.what}" for index, side in enumerate(sides))
        for number in np.flatnonzero(least < needed).tolist()
    }
    if not len(kept):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
        raise NotAvailable(f"no class has {needed} images on each side ({reasons})")
    images = count or int(least[kept].min())

    def score(side: LabelledFeatures) -> Score:
        per_class: list[float | None] = [None] * len(names)
        for number in kept.tolist():
            per_class[number] = distance_of_samples(
                *(_of_class(either, number, images, seed) for either in (side, reference))
            )
        value = float(np.mean([distance for distance in per_class if distance is not None]))
        protocol, split = reference.features.protocol, reference.features.source["split"]
        name = score_name("intra_fd", protocol.detector, f"{len(kept)}x{amount(images)}", split)
        details = {"class_count": images, "per_class": per_class, "left_out": left_out}
        total = images * len(kept)
        return Score(name, value, total, total, protocol, split, seed, details)

    result = score(samples)
    scores = {result.name: result}
    if floor is not None:
        scores[f"floor_{result.name}"] = score(floor)
    return scores


def _of_class(side: LabelledFeatures, number: int, images: int, seed: int) -> torch.Tensor:
    """The features of a keyed choice of a class's images, (images, F) float64."""
    rows = np.flatnonzero(side.labels == number)
    return torch.from_numpy(side.features.values[rows[choose(len(rows), images, seed)]]).double()
