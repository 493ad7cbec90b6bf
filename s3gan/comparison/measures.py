"""`scores.json` of s3gan.evaluate as a comparison reads it: which direction of a score is good, how it was measured.

A score's name is its protocol: scores of two names are two measures. Two values of one name compare where they were
measured alike: with the same detector, real images, recipe of classifiers, seeds and number of draws.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from s3gan.metrics.paired import Better

CAS = "cas"
FLOOR = "floor_"
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
    def order(self) -> int:
        """Its position among the measures of a table."""
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


@dataclass(frozen=True)
class MeasuredScore:
    """One score of one run."""

    measure: Measure
    value: float
    file: Path


@dataclass(frozen=True)
class RunScores:
    """All scores of one run, and what tables report in addition to them."""

    scores: list[MeasuredScore]
    gaps: list[str]  # scores that this run cannot have, with the reason
    unknown: list[str]  # names of scores without a direction that is good
    nimg: int  # real images that the newest checkpoint's discriminator saw; 0 where nobody knows
    real: dict[str, float]  # what real training images score, by measure
    budget: float | None  # accuracy of a classifier trained on the labelled images alone


def read_scores(file: Path) -> RunScores:
    """Reads a scores.json.

    Raises:
        UserError: it is damaged, or something else.
    """
    content = read_json(file)
    try:
        entries = list(_entries(content))
        return RunScores(
            scores=[
                MeasuredScore(measure_of(name, kind, entry, inputs), value, file)
                for name, entry, inputs in entries
                if (kind := kind_of(name)) is not None and (value := _value(entry)) is not None
            ],
            gaps=[f"{name}: {entry['n/a']}" for name, entry, _ in entries if "n/a" in entry],
            unknown=[name for name, entry, _ in entries if "n/a" not in entry and kind_of(name) is None],
            nimg=max((int(draw["images"].get("nimg", 0)) for *_, inputs in entries for draw in inputs), default=0),
            real=_real(content),
            budget=_value(content.get(CAS, {}).get("results", {}).get("budget", {})),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{file}: no scores of s3gan.evaluate ({type(error).__name__}: {error})") from None


def _entries(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """(name, score, inputs of its draws) of all scores of the run itself; a whole part may be n/a."""
    for part, stored in content.items():
        results = stored["results"]
        inputs = [draw["inputs"] for draw in stored["draws"]] if "draws" in stored else [stored["inputs"]]
        if "n/a" in results:
            results = {part: results}
        elif part == CAS:
            results = {CAS: results["pool"]}
        for name, entry in results.items():
            if not name.startswith(FLOOR):
                yield name, entry, inputs


def _value(entry: dict[str, Any]) -> float | None:
    value = entry.get("value", entry.get("accuracy"))
    return None if value is None else float(value)


def _real(content: dict[str, Any]) -> dict[str, float]:
    """The floors, and the accuracy of the classifier that has all real images and labels."""
    scores = {
        name.removeprefix(FLOOR): _value(entry)
        for stored in content.values()
        for name, entry in stored["results"].items()
        if name.startswith(FLOOR)
    }
    scores[CAS] = _value(content.get(CAS, {}).get("results", {}).get("all", {}))
    return {name: value for name, value in scores.items() if value is not None}
