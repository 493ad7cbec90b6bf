"""The Frechet distance between two sets of features, each approximated by a Gaussian, in float64.

Heusel et al. 2017 (arXiv 1706.08500), eq. 6; the closed form is Dowson & Landau 1982, eq. 4. What a distance is
called depends on the detector behind the features (score.py): FID only on those of one network.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class FeatureStatistics:
    """Mean and covariance of features from running float64 sums: mergeable, and reducible over ranks.

    The sums live on `device`, or on the host where the device has no float64 (mps).
    """

    def __init__(self, num_features: int, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.count = 0
        self.sums = torch.zeros(num_features, dtype=torch.float64, device=self.device)
        self.products = torch.zeros(num_features, num_features, dtype=torch.float64, device=self.device)

    @classmethod
    def of(cls, features: np.ndarray | Tensor, chunk: int = 4096) -> FeatureStatistics:
        """Statistics of a table (N, F) of any float type, added up in fixed chunks: the same wherever it runs."""
        table = torch.as_tensor(features)
        statistics = cls(table.shape[1], table.device)
        for start in range(0, len(table), chunk):
            statistics.update(table[start : start + chunk])
        return statistics

    def update(self, features: Tensor) -> None:
        """Adds features (n, F), n = 0 allowed."""
        if features.ndim != 2 or features.shape[1] != len(self.sums):
            raise ValueError(f"features of shape {tuple(features.shape)}, expected (n, {len(self.sums)})")
        values = features.detach().to(self.device).double()
        self.count += len(values)
        self.sums += values.sum(0)
        self.products += values.T @ values

    def merge(self, other: FeatureStatistics) -> None:
        """Adds what another accumulator has seen."""
        self.count += other.count
        self.sums += other.sums.to(self.device)
        self.products += other.products.to(self.device)

    def reduce(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Sums over ranks in place; `reduce` is a collective, which every rank must call."""
        self.count = int(reduce(torch.tensor(self.count, dtype=torch.float64, device=self.device)).item())
        self.sums = reduce(self.sums)
        self.products = reduce(self.products)

    @property
    def mean(self) -> np.ndarray:
        """(F,) float64."""
        return self._moments()[0]

    @property
    def covariance(self) -> np.ndarray:
        """(F, F) float64, unbiased (divided by count - 1)."""
        return self._moments()[1]

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors, got {self.count}")
        mean = self.sums / self.count
        covariance = (self.products - self.count * torch.outer(mean, mean)) / (self.count - 1)
        return mean.cpu().numpy(), covariance.cpu().numpy()


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Squared Frechet distance |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½) of two Gaussians (Heusel 2017, eq. 6).

    `mean`: (F,), `cov`: (F, F) symmetric, taken as float64. tr (S1 S2)^½ is the sum of the square roots of the
    eigenvalues of S1^½ S2 S1^½, that is of the singular values of S1^½ S2^½. The latter are computed: no root is
    taken of a difference that rounding made negative, and covariances without full rank (fewer samples than
    features) keep their accuracy.
    """
    mean1, cov1, mean2, cov2 = (np.asarray(array, dtype=np.float64) for array in (mean1, cov1, mean2, cov2))
    if mean1.shape != mean2.shape or not cov1.shape == cov2.shape == (*mean1.shape, *mean1.shape):
        raise ValueError(f"statistics do not fit: {mean1.shape}, {cov1.shape} against {mean2.shape}, {cov2.shape}")
    if not all(np.isfinite(array).all() for array in (mean1, cov1, mean2, cov2)):
        raise ValueError("statistics hold values that are not finite")
    overlap = np.linalg.svd(_root(cov1) @ _root(cov2), compute_uv=False).sum()
    distance = ((mean1 - mean2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * overlap
    return max(0.0, float(distance))  # rounding can make it slightly negative


def distance_between(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """`frechet_distance` of two accumulators."""
    return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)


def distance_of_samples(x: Tensor, y: Tensor) -> float:
    """The same distance from the features (n, F) and (m, F) of two sets, quick where a set has fewer images than F.

    The singular values of S1^½ S2^½ that are not 0 are those of X Yᵀ, for features X (n, F) and Y (m, F) less their
    means and divided by the roots of n - 1 and m - 1: a small matrix takes the place of two large covariances.
    """
    if min(len(x), len(y)) >= x.shape[1]:
        return distance_between(FeatureStatistics.of(x), FeatureStatistics.of(y))
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a covariance needs at least 2 feature vectors, got {min(len(x), len(y))}")
    means = [side.double().mean(0) for side in (x, y)]
    scaled = [(side - mean) / (len(side) - 1) ** 0.5 for side, mean in zip((x, y), means, strict=True)]
    overlap = torch.linalg.svdvals(scaled[0] @ scaled[1].T).sum()
    distance = (means[0] - means[1]).pow(2).sum() + sum(side.pow(2).sum() for side in scaled) - 2 * overlap
    return max(0.0, float(distance))


def _root(covariance: np.ndarray) -> np.ndarray:
    """Symmetric square root of a positive semi-definite matrix; eigenvalues that rounding made negative count as 0."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
