"""One `scores.json` of s3gan.evaluate as a comparison reads it: by the names of the scores, wherever they stand."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from s3gan.comparison.measures import CAS, Measure, kind_of, measure_of

FLOOR = "floor_"


@dataclass(frozen=True)
class Reading:
    """One score of one run."""

    measure: Measure
    value: float
    file: Path


@dataclass(frozen=True)
class RunScores:
    """All scores of one run, and what stands beside them."""

    readings: list[Reading]
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
            readings=[
                Reading(measure_of(name, kind, entry, inputs), value, file)
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
    found = {
        name.removeprefix(FLOOR): _value(entry)
        for stored in content.values()
        for name, entry in stored["results"].items()
        if name.startswith(FLOOR)
    }
    found[CAS] = _value(content.get(CAS, {}).get("results", {}).get("all", {}))
    return {name: value for name, value in found.items() if value is not None}
