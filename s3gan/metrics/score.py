"""Scores with their names and protocols.

The name states detector, distance and image count: `fd_classifier10k` is the Frechet distance on the features of the
classifier detector between 10,000 images and real test images, `fd_classifier10k_train` that to training images. On the
network of FID the two distances are `fid10k` and `kid10k`; only scores on that original network are called so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from cluster_jobs.core.errors import UserError
from s3gan.metrics.detector import Detector, DetectorName, Features, Protocol
from s3gan.metrics.frechet import FeatureStatistics, distance_between
from s3gan.metrics.inception_score import SPLITS, inception_score
from s3gan.metrics.kernel import kernel_distance
from s3gan.metrics.knn import centred
from s3gan.metrics.labelled import choose
from s3gan.metrics.prdc import DENSITY_COVERAGE_K, PRECISION_RECALL_K, prdc
from s3gan.metrics.trained import NotAvailable


@dataclass(frozen=True)
class Score:
    """A number and the protocol by which it was computed."""

    name: str
    value: float
    samples: int
    reference: int  # real images
    protocol: Protocol
    split: str  # of the real images
    seed: int
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "samples": self.samples,
            "reference": self.reference,
            "detector": self.protocol.hash[:12],
            "preprocessing": self.protocol.preprocessing,
            "split": self.split,
            "seed": self.seed,
            **self.details,
        }


def amount(count: int) -> str:
    """`10k` for whole thousands, else `360`."""
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)


def score_name(kind: str, detector: str, count: str, split: str = "") -> str:
    """`fd_classifier10k`, `fd_dinov2_10k`, `fid10k`; those of distances to training images end in `_train`."""
    special = {"fd": "fid", "kd": "kid", "is": "is"} if detector == DetectorName.inception.name else {}
    name = special.get(kind, f"{kind}_{detector}")
    return f"{name}{'_' if name[-1].isdigit() else ''}{count}{'_train' if split == 'train' else ''}"


def frechet_score(samples: Features, reference: Features, *, seed: int = 0) -> Score:
    """The Frechet distance; the count in its name is that of the smaller side.

    Raises:
        UserError: the two come from different protocols, or a side has fewer than 2 images.
    """
    value = distance_between(*(FeatureStatistics.of(side.values) for side in checked(samples, reference)))
    return _score("fd", value, samples, reference, seed)


def kernel_score(
    samples: Features, reference: Features, *, seed: int = 0, subsets: int = 100, size: int = 1000
) -> Score:
    """The kernel distance: the mean over keyed subsets, with its standard deviation. Raises as `frechet_score`."""
    checked(samples, reference)
    value, sd, used = kernel_distance(samples.values, reference.values, subsets=subsets, size=size, seed=seed)
    return _score("kd", value, samples, reference, seed, sd=sd, subsets=subsets, subset_size=used)


def prdc_scores(
    samples: Features,
    reference: Features,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    radii: dict[int, torch.Tensor] | None = None,
) -> list[Score]:
    """Precision, recall, density and coverage of two sets of as many images, on the device.

    Args:
        radii: `squared_radii` of the reference, where they are known already.

    Raises:
        NotAvailable: fewer images than the k-th neighbour needs.
        UserError: as `frechet_score`; or the sets are not of one size.
    """
    checked(samples, reference)
    if len(samples) != len(reference):
        raise UserError(f"{len(samples)} images against {len(reference)} real ones: precision needs as many")
    if len(samples) <= DENSITY_COVERAGE_K:
        raise NotAvailable(f"{len(samples)} images a side, a ball needs {DENSITY_COVERAGE_K} neighbours")
    real, fake = centred(reference.values, samples.values, device=device)
    scores = prdc(real, fake, radii)
    k = {"precision": PRECISION_RECALL_K, "recall": PRECISION_RECALL_K}
    return [
        _score(name, value, samples, reference, seed, k=k.get(name, DENSITY_COVERAGE_K))
        for name, value in scores.items()
    ]


def inception_score_of(detector: Detector, samples: Features, *, seed: int = 0) -> Score:
    """The Inception Score, whose only detector is the network of FID.

    Raises:
        NotAvailable: fewer images than splits.
    """
    assert detector.last_layer is not None and detector.protocol == samples.protocol
    if len(samples) < SPLITS:
        raise NotAvailable(f"{len(samples)} images, the Inception Score has {SPLITS} splits")
    value, sd = inception_score(samples.values, detector.last_layer)
    name = score_name("is", samples.protocol.detector, amount(len(samples)))
    return Score(name, value, len(samples), 0, samples.protocol, "none", seed, {"sd": sd, "splits": SPLITS})


def checked(samples: Features, reference: Features) -> tuple[Features, Features]:
    """Both, if they may be compared.

    Raises:
        UserError: they come from different protocols, or a side has fewer than 2 images.
    """
    if samples.protocol != reference.protocol:
        raise UserError(
            f"features of detector {samples.protocol} cannot be scored against a reference of detector "
            f"{reference.protocol}: extract both with the same one"
        )
    if min(len(samples), len(reference)) < 2:
        raise UserError("a distance needs at least 2 images a side")
    return samples, reference


def equal_counts(*sides: Features, seed: int) -> list[Features]:
    """As many rows of each set as the smallest has, a keyed choice."""
    count = min(len(side) for side in sides)
    return [side.rows(choose(len(side), count, seed)) for side in sides]


def _score(kind: str, value: float, samples: Features, reference: Features, seed: int, **details: Any) -> Score:
    counts, split = (len(samples), len(reference)), reference.source["split"]
    name = score_name(kind, reference.protocol.detector, amount(min(counts)), split)
    return Score(name, value, *counts, reference.protocol, split, seed, details)
