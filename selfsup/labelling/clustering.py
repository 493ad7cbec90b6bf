"""Seeded k-means on features, and scores of clusters against true labels. The only importer of faiss.

The label table of clusters is made in inferred.py.

By default FAISS starts from random points and trains on a subsample, which raises the inertia by 20 to 37 % on 60,000
points; here it starts from k-means++ centroids (Arthur & Vassilvitskii 2007) and trains on every point.
"""

from dataclasses import dataclass
from enum import Enum

import faiss
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import comb
from scipy.stats import entropy
from sklearn.cluster import kmeans_plusplus
from sklearn.metrics import mutual_info_score

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.seeds import derive_seed

ITERATIONS = 20
SEEDING_ROWS = 16_000  # rows that k-means++ uses, or SEEDING_ROWS_EACH per cluster where that is more
SEEDING_ROWS_EACH = 32
PCA_DIMENSIONS = 256


class Space(Enum):
    """What is done to the features before their distances are compared."""

    raw = "raw"  # nothing
    l2 = "l2"  # unit length; centroids are projected back onto the sphere (spherical k-means)
    whiten = "whiten"  # PCA to at most 256 dimensions, whitened, unit length (DeepCluster, Caron et al. 2018)


@dataclass(frozen=True)
class Clusters:
    """k clusters of N samples.

    Attributes:
        labels: (N,) int32, the nearest centroid.
        distances: (N,) float32, the squared distance to it, in the chosen space.
        sizes: (k,) int64; a cluster may be empty.
        centroids: (k, F') float32, in the chosen space.
    """

    labels: np.ndarray
    distances: np.ndarray
    sizes: np.ndarray
    centroids: np.ndarray

    @property
    def empty(self) -> int:
        """The number of empty clusters."""
        return int((self.sizes == 0).sum())

    @property
    def size_entropy(self) -> float:
        """The entropy of the sizes over log k: 1 for equal sizes, 0 if one cluster holds all samples."""
        return size_entropy(self.sizes)

    @property
    def inertia(self) -> float:
        """The mean squared distance to the centroid."""
        return float(self.distances.mean(dtype=np.float64))


def embed(features: np.ndarray, space: Space) -> np.ndarray:
    """The features (N, F) in the space in which distances are compared: (N, ≤ F) float32, contiguous."""
    if space is Space.whiten:
        features = _whiten(features)
    if space is not Space.raw:
        features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(features, dtype=np.float32)


def _whiten(features: np.ndarray) -> np.ndarray:
    centred = features - features.mean(axis=0, dtype=np.float64).astype(np.float32)
    values, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64) / len(centred))
    kept = np.argsort(values)[::-1][:PCA_DIMENSIONS]
    kept = kept[values[kept] > 1e-6 * values.max()]  # directions without variance would be noise of unit size
    return centred @ (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32)


def kmeans(
    features: np.ndarray,
    clusters: int,
    *,
    seed: int,
    space: Space = Space.l2,
    threads: int = 1,
    start: np.ndarray | None = None,
) -> Clusters:
    """Clusters features; the same result for the same seed and number of threads. On a GPU where this faiss has one.

    Args:
        features: (N, F) float32, finite.
        clusters: k, from 1 to N.
        threads: CPU threads of faiss, which torch does not set.
        start: (k, F') float32, the centroids to start from, in the space; None starts from k-means++.

    Raises:
        UserError: k is out of range or a feature is not finite.
    """
    check_clusters(clusters, len(features))
    points = embed(features, space)
    if not np.isfinite(points).all():
        raise UserError(f"the features of sample {int(np.isfinite(points).all(axis=1).argmin())} are not finite")
    faiss.omp_set_num_threads(threads)
    search = faiss.Kmeans(
        points.shape[1],
        clusters,
        niter=ITERATIONS,
        seed=derive_seed("kmeans", seed) % 2**31,
        spherical=space is not Space.raw,
        gpu=getattr(faiss, "get_num_gpus", lambda: 0)() > 0,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    search.train(points, init_centroids=_seed_centroids(points, clusters, seed) if start is None else start)
    distances, labels = search.assign(points)
    labels = labels.astype(np.int32)
    if space is not Space.raw:
        distances = 2 - 2 * distances  # spherical k-means searches by inner product, of unit vectors here
    distances = np.maximum(distances, 0).astype(np.float32)
    return Clusters(labels, distances, np.bincount(labels, minlength=clusters), np.asarray(search.centroids))


def check_clusters(clusters: int, samples: int) -> None:
    """Raises UserError unless 1 <= clusters <= samples."""
    if not 1 <= clusters <= samples:
        raise UserError(f"clusters={clusters}: expected 1 to {samples}, the number of samples")


def _seed_centroids(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """k-means++ centroids (k, F) from a seeded subsample of bounded size."""
    random = np.random.RandomState(derive_seed("k-means++", seed) % 2**32)
    rows = min(len(points), max(SEEDING_ROWS, SEEDING_ROWS_EACH * clusters))
    chosen = np.sort(random.permutation(len(points))[:rows])
    centroids, _ = kmeans_plusplus(points[chosen], clusters, random_state=random)
    return np.ascontiguousarray(centroids, dtype=np.float32)


def size_entropy(sizes: np.ndarray) -> float:
    """The entropy of cluster sizes over log k, in [0, 1]; 1 for a single cluster."""
    if len(sizes) < 2:
        return 1.0
    return float(entropy(sizes, base=len(sizes)))


@dataclass(frozen=True)
class Agreement:
    """How well clusters agree with true labels, each 1 for equal partitions.

    Attributes:
        nmi: normalised mutual information (arithmetic mean of the entropies), in [0, 1].
        ari: adjusted Rand index, 0 expected by chance.
        matched_accuracy: share of samples right under the best one-to-one matching of clusters and classes.
        majority_accuracy: share of samples right when every cluster takes its commonest class (purity).
    """

    nmi: float
    ari: float
    matched_accuracy: float
    majority_accuracy: float


def agreement(clusters: np.ndarray, truth: np.ndarray) -> Agreement:
    """Scores clusters (n,) against true labels (n,), both non-negative integers, n ≥ 1."""
    table = np.zeros((int(clusters.max()) + 1, int(truth.max()) + 1), dtype=np.int64)
    np.add.at(table, (clusters, truth), 1)
    total = int(table.sum())
    rows, columns = linear_sum_assignment(table, maximize=True)
    return Agreement(
        nmi=mutual_information(table),
        ari=_adjusted_rand(table),
        matched_accuracy=int(table[rows, columns].sum()) / total,
        majority_accuracy=int(table.max(axis=1).sum()) / total,
    )


def mutual_information(table: np.ndarray) -> float:
    """The mutual information of two partitions over the mean of their entropies, in [0, 1], from counts of samples.

    Args:
        table: (clusters, classes) integers, the samples in each pair of parts; at least one sample.
    """
    mean = (entropy(table.sum(axis=1)) + entropy(table.sum(axis=0))) / 2
    if mean == 0:
        return 1.0  # one cluster, one class: equal partitions
    return float(np.clip(mutual_info_score(None, None, contingency=table) / mean, 0, 1))


def _adjusted_rand(table: np.ndarray) -> float:
    """Hubert & Arabie 1985: pairs together in both, less what chance gives, over its maximum less the same.

    Not scikit-learn's function, which takes one label per sample and not their contingency table.
    """

    def pairs(counts: np.ndarray) -> float:
        return float(comb(counts, 2).sum())

    together = pairs(table)
    first, second = pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    every = pairs(table.sum(keepdims=True))
    by_chance = first * second / every if every else 0.0
    highest = (first + second) / 2
    return 1.0 if highest == by_chance else (together - by_chance) / (highest - by_chance)
