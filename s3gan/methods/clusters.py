"""Methods on cluster numbers: no label at all ("Clustering" of section 3.1; "(SS)" adds section 3.3)."""

from dataclasses import dataclass

import numpy as np

from s3gan.methods.base import Method


@dataclass(frozen=True)
class Clustering(Method):
    """Clusters differ in size, so conditions of fakes follow the clusters' sizes instead of being uniform."""

    def fake_weights(self, counts: np.ndarray) -> np.ndarray | None:
        return counts / counts.sum()


_CLUSTER = "make clusters with selfsup.label method=kmeans"
clustering = Clustering("clustering", origins=frozenset({"cluster"}), advice=_CLUSTER)
clustering_ss = Clustering("clustering_ss", origins=frozenset({"cluster"}), advice=_CLUSTER, heads=("rotation",))
