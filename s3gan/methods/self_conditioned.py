"""Clusters that follow the discriminator: self-conditioned GANs (Liu et al. 2020, CVPR, arXiv 2006.10728).

No label at all, and no pretraining is needed: every `recluster_nimg` real images the training images are clustered
again on the discriminator's own features (`s3gan.training.reclustering`), and training continues with the new clusters.
"""

from dataclasses import dataclass

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.label_table import LabelTable
from s3gan.methods.clusters import Clustering


@dataclass(frozen=True)
class SelfConditioned(Clustering):
    """Starts from a table of clusters or of random labels; without one from clusters of the untrained D's features, as
    in the paper (section 3)."""

    reclusters: bool = True

    def check(self, table: LabelTable | None, samples: int) -> None:
        if table is not None:
            super().check(table, samples)

    def class_names(self, table: LabelTable | None, classes: int) -> list[str]:
        if table is None and classes < 1:
            raise UserError(f"classes={classes}: method={self.name} without labels= needs a number of clusters")
        count = classes if table is None else len(table.classes)
        return [f"cluster {number}" for number in range(count)]


_START = frozenset({"cluster", "random"})
_ADVICE = "leave labels= out and give classes=, or start from selfsup.label method=kmeans or method=random"
self_conditioned = SelfConditioned("self_conditioned", origins=_START, advice=_ADVICE)
# beyond the paper: with the rotation loss of S3GAN
self_conditioned_ss = SelfConditioned("self_conditioned_ss", origins=_START, advice=_ADVICE, heads=("rotation",))
