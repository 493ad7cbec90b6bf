"""Methods on class labels: given for all or some samples, or inferred from a few (section 3.1)."""

from dataclasses import dataclass

import numpy as np

from s3gan.methods.base import Method

GIVEN = frozenset({"true"})
INFERRED = frozenset({"true", "inferred"})


@dataclass(frozen=True)
class LabelledOnly(Method):
    """Trains on the labelled samples and never sees the others: what the labels alone are worth (section 4)."""

    def subset(self, labels: np.ndarray | None) -> np.ndarray | None:
        return None if labels is None else np.flatnonzero(labels >= 0)


# the BigGAN of the paper's comparison: every label is given
supervised = Method(
    "supervised",
    origins=GIVEN,
    advice="use selfsup.label method=reveal fraction=1, or infer what is missing and train with method=s2gan or s3gan",
)
labelled_only = LabelledOnly(
    "labelled_only", origins=GIVEN, advice="use selfsup.label method=reveal or method=import", partial=True
)
_INFER = "infer all labels with selfsup.label method=classifier"
# "S2GAN": a classifier on self-supervised features predicts the labels before the GAN is trained
s2gan = Method("s2gan", origins=INFERRED, advice=_INFER)
# "S3GAN": S2GAN with self-supervision while the GAN is trained (section 3.3)
s3gan = Method("s3gan", origins=INFERRED, advice=_INFER, heads=("rotation",))
