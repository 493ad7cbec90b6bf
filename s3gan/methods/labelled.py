"""Methods on class labels: given for all samples, or inferred from a few (Lucic et al. 2019, section 3.1)."""

from s3gan.methods.base import Method

GIVEN = frozenset({"true"})
INFERRED = frozenset({"true", "inferred"})

supervised = Method(
    "supervised",
    rotation=False,
    origins=GIVEN,
    advice="use selfsup.label method=reveal fraction=1, or infer what is missing and train with method=s2gan or s3gan",
)
_INFER = "infer all labels with selfsup.label method=classifier"
s2gan = Method("s2gan", rotation=False, origins=INFERRED, advice=_INFER)
s3gan = Method("s3gan", rotation=True, origins=INFERRED, advice=_INFER)
