"""Re-clustering: at a cadence in training, the training images are clustered again on D's own features.

Self-conditioned GANs (Liu et al. 2020, section 3): k-means on D's pooled features of a fixed subset of the training
images, started from the means of the old clusters; new clusters get the number of the old cluster with which they share
most images (one to one), so that the class embeddings of G and D keep their meaning; then every training image gets the
cluster with the nearest centroid. Features are taken as they are, not scaled to unit length, as in the paper's code.

No hidden label is read. A re-clustering costs a read and a forward pass of D for every training image and
`recluster_count` images more, 4 bytes for every image on the main rank, and on every rank the features of
`recluster_count` images. The stop flag is not looked at meanwhile.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cluster_jobs.core.seeds import derive_seed
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import permute
from cluster_jobs.training import image_clusters
from cluster_jobs.training.run import Run, Stateful
from s3gan.inference.sampling import block_size
from s3gan.training.conditioning import Conditions, TrainingLabels, fake_distribution
from s3gan.training.config import TrainConfig
from s3gan.training.game import Game
from selfsup.encoders.feature_table import extract

ROWS = 1 << 22  # images that are counted at once


class Reclustering:
    """Replaces the labels of a run by clusters of D's features at a cadence, if its method asks for it.

    The current clusters depend only on the last re-clustering, which depends only on D's weights and the labels at that
    time: a run that is killed computes the same clusters again, so that a re-clustering needs no checkpoint of its own.

    Args:
        conditions, training_labels, game.fakes: what a re-clustering changes.
        subset: the samples that the run trains on, and finds centroids on; all by default.
    """

    def __init__(
        self,
        run: Run[TrainConfig],
        game: Game,
        conditions: Conditions,
        training_labels: TrainingLabels,
        shards: Shards,
        subset: np.ndarray | None = None,
    ) -> None:
        self.run, self.config, self.game, self.shards = run, run.config, game, shards
        self.conditions, self.training_labels, self.subset = conditions, training_labels, subset
        self.clusters = len(conditions.class_names)
        self.nimg, self.sha256 = image_clusters.NEVER, ""
        self._start = training_labels.labels, conditions.counts, conditions.weights

    def parts(self) -> dict[str, Stateful]:
        """What a checkpoint holds of it."""
        return {image_clusters.STATE_NAME: self} if self.conditions.method.reclusters else {}

    def state_dict(self) -> dict[str, Any]:
        return {"nimg": self.nimg, "sha256": self.sha256}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["nimg"] == image_clusters.NEVER:
            self.nimg, self.sha256 = image_clusters.NEVER, ""
            self._enforce(*self._start)
        else:
            self._adopt(state["nimg"], state["sha256"])

    def update(self, nimg: int) -> dict[str, float]:
        """Computes new clusters if they are due before the step at `nimg` images. Every rank must call this.

        Returns:
            Metrics, equal on all ranks: `changed`, the share of images with another cluster than before, `nmi` between
            the clusters before and now, `empty` clusters, and the `size_entropy` (1 for equal sizes). {} if not due, or
            where D's features are not finite: then the clusters stay as they are.
        """
        if not self._due(nimg):
            return {}
        self.game.discriminator.eval()
        centroids = self._centroids(nimg)
        labels = None if centroids is None else self._assign(centroids)
        self.game.discriminator.train()
        if labels is None:
            self.run.say(f"no new clusters at {nimg:,} images: D's features are not finite")
            return {}
        self.run.on_main(lambda: self._write(nimg, labels))
        metrics = self._adopt(nimg)["metrics"]
        values = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        self.run.say(f"{self.clusters} clusters of D's features at {nimg:,} images: {values}")
        return {f"clusters/{name}": value for name, value in metrics.items()}

    def write_tables(self) -> None:
        """Writes the label tables of the clusters of all kept checkpoints. Every rank must call this."""
        if self.conditions.method.reclusters:
            self.run.on_main(lambda: self._prune(self.nimg))
            self.run.on_main(lambda: image_clusters.write_tables(self.run.dir, self.shards))

    def _due(self, nimg: int) -> bool:
        if not self.conditions.method.reclusters:
            return False
        if self.training_labels.labels is None:
            return True
        cadence = self.config.recluster_nimg
        return nimg > 0 and cadence > 0 and self.run.due(cadence, nimg)

    def _centroids(self, nimg: int) -> Tensor | None:
        """(clusters, F) float32 on every rank, numbered as the old clusters that they continue; None where D's
        features are not finite: whether the run goes back is not decided here."""
        from selfsup.labelling.clustering import (  # loads faiss, which takes seconds that other methods need not wait
            Space,
            kmeans,
        )

        trained = np.arange(len(self.shards)) if self.subset is None else self.subset
        count = min(self.config.recluster_count, len(trained))
        chosen = np.sort(
            trained[permute(np.arange(count), len(trained), derive_seed(self.config.seed, "re-clustering"))]
        )
        gathered = [self.run.gather(block).cpu().numpy() for block in self._features("features of D", chosen)]
        points, old = np.concatenate(gathered), self.training_labels.labels
        if old is not None and not np.isfinite(points).all():
            return None
        centroids = np.zeros((self.clusters, points.shape[1]), np.float32)

        def cluster() -> None:
            start = None if old is None else starting_means(points, old[chosen], self.clusters)
            seed, threads = derive_seed(self.config.seed, "re-clustering", nimg), torch.get_num_threads()
            clusters = kmeans(points, self.clusters, seed=seed, space=Space.raw, threads=threads, start=start)
            numbers: Any = slice(None) if old is None else match_clusters(clusters.labels, old[chosen], self.clusters)
            centroids[numbers] = clusters.centroids

        self.run.on_main(cluster)
        return self.run.reduce(torch.from_numpy(centroids).to(self.run.device))  # zeros on the other ranks

    def _assign(self, centroids: Tensor) -> np.ndarray:
        """The nearest centroid of every training image, (samples,) int32 on the main rank, (0,) on the others."""
        labels = np.empty(len(self.shards) if self.run.is_main else 0, np.int32)
        start = 0
        for block in self._features("re-clustering"):
            assigned = self.run.gather(nearest(block, centroids)).cpu().numpy()
            if self.run.is_main:
                labels[start : start + len(assigned)] = assigned
            start += len(assigned)
        return labels

    def _features(self, what: str, indices: np.ndarray | None = None) -> Iterator[Tensor]:
        """This rank's features (n, F) float32 on the device, block by block; joined in rank order they are in index
        order."""
        size, damaged = block_size(self.shards.size), self.config.damaged.name
        blocks = extract(self._pooled, self.shards, self.run, indices=indices, block=size, damaged=damaged, what=what)
        return (features for _, features in blocks)

    def _pooled(self, images: Tensor) -> Tensor:
        unknown = torch.full((len(images),), -1, device=images.device)
        with self.run.autocast():
            return self.game.discriminator(images, unknown).features.float()

    def _write(self, nimg: int, labels: np.ndarray) -> None:
        from selfsup.labelling.clustering import mutual_information, size_entropy

        sizes, metrics = np.bincount(labels, minlength=self.clusters), {}
        if self.training_labels.labels is not None:
            both = overlaps(labels, self.training_labels.labels, self.clusters)
            metrics = {"changed": 1 - float(np.trace(both)) / len(labels), "nmi": mutual_information(both)}
        facts = {
            "class_counts": sizes.tolist(),
            "fake_weights": fake_distribution(self.config, sizes),
            "metrics": metrics | {"empty": int((sizes == 0).sum()), "size_entropy": size_entropy(sizes)},
            "label_table": {
                "classes": self.conditions.class_names,
                "fingerprint": self.shards.fingerprint,
                "method": "kmeans",
                "encoder": "the run's own discriminator",
                "encoder_table": self.conditions.described or None,
                "nimg": nimg,
            },
        }
        image_clusters.write_clusters(self.run.dir, nimg, labels, facts)
        self._prune(nimg)

    def _prune(self, nimg: int) -> None:
        image_clusters.prune(self.run.dir, nimg, [int(path.stem) for path in self.run.store.paths()])

    def _adopt(self, nimg: int, sha256: str | None = None) -> dict[str, Any]:
        """Puts the clusters found at `nimg` images in force on this rank, and returns what is written about them."""
        labels, facts = image_clusters.read_clusters(self.run.dir, nimg, sha256)
        self.nimg, self.sha256 = nimg, facts["sha256"]
        self._enforce(labels, facts["class_counts"], facts["fake_weights"])
        return facts

    def _enforce(self, labels: np.ndarray | None, counts: Any, weights: list[float] | None) -> None:
        self.training_labels.labels = labels
        self.conditions.counts, self.conditions.weights = counts, weights
        held, new = self.game.fakes.weights, self.conditions.device_weights(self.run.device)
        assert held is not None and new is not None, "classes of fakes that may change are drawn by weights"
        held.copy_(new)


def starting_means(points: np.ndarray, labels: np.ndarray, clusters: int) -> np.ndarray:
    """The means (clusters, F) float32 of points (n, F) with labels (n,); n >= clusters.

    An empty cluster begins at the point that is farthest from the mean of its own, the next one at the second, and so
    on.
    """
    means = np.zeros((clusters, points.shape[1]), np.float32)
    for cluster in np.unique(labels):
        means[cluster] = points[labels == cluster].mean(0, dtype=np.float64)
    empty = np.setdiff1d(np.arange(clusters), labels)
    farthest = np.argsort(-np.square(points - means[labels]).sum(1), kind="stable")
    means[empty] = points[farthest[: len(empty)]]
    return means


def match_clusters(new: np.ndarray, old: np.ndarray, clusters: int) -> np.ndarray:
    """For each new cluster the old one that it continues, (clusters,) int64, one to one: of all such matchings one in
    which most images stay in their cluster (the Hungarian algorithm, Kuhn 1955).

    new, old: (n,) clusters of the same images.
    """
    _, matched = linear_sum_assignment(overlaps(new, old, clusters), maximize=True)
    return matched


def overlaps(new: np.ndarray, old: np.ndarray, clusters: int) -> np.ndarray:
    """(clusters, clusters) int64: the images in each new (row) and old cluster. Both may be memory-mapped."""
    table = np.zeros(clusters * clusters, np.int64)
    for start in range(0, len(new), ROWS):
        rows = slice(start, start + ROWS)
        table += np.bincount(new[rows].astype(np.int64) * clusters + old[rows], minlength=len(table))
    return table.reshape(clusters, clusters)


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """The nearest of centroids (k, F) to each point (n, F): (n,) int32; the first of several at equal distance."""
    return (centroids.square().sum(1) - 2 * points @ centroids.T).argmin(1).int()
