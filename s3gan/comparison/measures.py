"""What the scores of s3gan.evaluate mean to a comparison: which direction is good, and how they were measured.

A score's name is its protocol: scores of two names are two measures. Two values of one name compare where they were
measured alike: with the same detector, real images, recipe of classifiers, seeds and number of draws.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3gan.metrics.paired import Better

CAS = "cas"
ENTRY: tuple[str, ...] = ("detector", "preprocessing", "samples", "reference", "split", "seed", "draws", "class_count")
ENTRY += ("subsets", "subset_size", "k", "splits", "test_count")
INPUTS = ("real", "detector", "classifier", "seed", "count", "reference")
IMAGES = ("count", "balance", "truncation", "seed")


@dataclass(frozen=True)
class Kind:
    """A kind of score: what its names look like, what it is called, and which direction is good."""

    pattern: str
    title: str
    better: Better


KINDS = {  # in the order of tables
    "fd": Kind(r"(fd_|fid)", "Frechet distance", Better.lower),
    "intra": Kind(r"intra_", "Frechet distance within classes", Better.lower),
    CAS: Kind(r"cas$", "accuracy on real test images of a classifier trained on samples alone", Better.higher),
    "kd": Kind(r"(kd_|kid)", "kernel distance", Better.lower),
    "precision": Kind(r"precision_", "precision", Better.higher),
    "recall": Kind(r"recall_", "recall", Better.higher),
    "density": Kind(r"density_", "density", Better.higher),
    "coverage": Kind(r"coverage_", "coverage", Better.higher),
    "is": Kind(r"is\d", "Inception score", Better.higher),
}


@dataclass(frozen=True)
class Measure:
    """One score of a study; all its values were measured alike."""

    name: str  # `fd_classifier10k`
    kind: str  # a key of KINDS
    protocol: dict[str, Any]

    @property
    def title(self) -> str:
        return KINDS[self.kind].title

    @property
    def better(self) -> Better:
        return KINDS[self.kind].better

    @property
    def place(self) -> int:
        """Its place in a table."""
        return list(KINDS).index(self.kind)


def kind_of(name: str) -> str | None:
    """The kind of a score by its name; None where nothing says which direction is good."""
    return next((kind for kind, known in KINDS.items() if re.match(known.pattern, name)), None)


def measure_of(name: str, kind: str, entry: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> Measure:
    """What a score measures.

    Args:
        entry: the score as s3gan.evaluate wrote it.
        inputs: what each of its draws depended on.
    """
    images: list[dict[str, Any]] = []  # once where draws differ in the checkpoint only
    for draw in inputs:
        drawn = _chosen(draw["images"], IMAGES)
        images += [drawn] if drawn not in images else []
    return Measure(name, kind, _chosen(entry, ENTRY) | _chosen(inputs[0], INPUTS, "inputs.") | {"images": images})


def difference(first: Measure, other: Measure) -> str:
    """What was not measured alike, in words; empty where all was."""
    for name in dict.fromkeys([*first.protocol, *other.protocol]):
        before, now = first.protocol.get(name), other.protocol.get(name)
        if before != now:
            return f"{name}={now!r} instead of {before!r}"
    return ""


def _chosen(values: Mapping[str, Any], names: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    return {prefix + name: values[name] for name in names if name in values}
