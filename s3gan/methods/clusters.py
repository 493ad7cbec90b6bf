"""Methods on cluster numbers: no label at all (Lucic et al. 2019, section 3.2, "Clustering")."""

from dataclasses import dataclass

import numpy as np

from s3gan.methods.base import Method


@dataclass(frozen=True)
class Clustering(Method):
    """Clusters differ in size, so conditions of fakes follow the clusters' sizes instead of being uniform."""

    def fake_weights(self, counts: np.ndarray) -> np.ndarray | None:
        return counts / counts.sum()


_CLUSTER = "make clusters with selfsup.label method=kmeans"
clustering = Clustering("clustering", rotation=False, origins=frozenset({"cluster"}), advice=_CLUSTER)
clustering_ss = Clustering("clustering_ss", rotation=True, origins=frozenset({"cluster"}), advice=_CLUSTER)
