"""The results of a study, read back: SCORES/ROW/SEED/scores.json of s3gan.evaluate, and the metrics of label tables.

A row is called METHOD or METHOD_PERCENT (`s3gan_10` saw 10 % of the labels). A row of another name is compared like any
other, and is left out of the axis of labels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from s3gan.comparison.measures import Measure, MeasuredScore, RunScores, difference, read_scores

WITH_LABELS = ("s3gan", "s2gan", "s3gan_co", "s2gan_co", "labelled_only")  # methods whose rows name a percentage
WITHOUT_LABELS = (
    *("single_label", "single_label_ss", "random_label", "clustering", "clustering_ss", "ssgan"),
    *("self_conditioned", "self_conditioned_ss"),
)
ALL_LABELS = "supervised"


@dataclass
class Study:
    rows: list[str]  # in the order of the labels that they saw, the reference last
    seeds: dict[str, list[int]]  # of each row
    measures: dict[str, Measure] = field(default_factory=dict)  # in the order of tables
    values: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)  # by measure, row and seed
    real: dict[str, float] = field(default_factory=dict)  # what real training images score, by measure
    budgets: dict[int, float] = field(
        default_factory=dict
    )  # CAS of the labelled images alone, by percent of the labels
    notes: list[str] = field(default_factory=list)  # what is missing, left out, or not equal


def method_and_percent(row: str) -> tuple[str, int | None]:
    """A row's method, and the percentage of the labels that it saw; None where its name does not say it."""
    if row == ALL_LABELS:
        return row, 100
    if row in WITHOUT_LABELS:
        return row, 0
    method, _, digits = row.rpartition("_")
    return (method, int(digits)) if method in WITH_LABELS and digits.isdecimal() else (row, None)


def read_study(scores: Path, reference: str, rows: Sequence[str] = ()) -> Study:
    """Reads the scores of all rows, or of the named ones.

    Raises:
        UserError: no scores, none of the reference, a damaged file, or scores that were not measured alike.
    """
    files = _find(scores, rows)
    if not files.get(reference):
        have = ", ".join(row for row in files if files[row]) or "none has ROW/SEED/scores.json of s3gan.evaluate"
        raise UserError(f"reference={reference}: expected a row that has scores in {scores} ({have})")
    runs = {row: {seed: read_scores(file) for seed, file in sorted(by_seed.items())} for row, by_seed in files.items()}
    in_order = sorted(runs, key=lambda row: (row == reference, _labels_seen(row), row))
    study = Study(in_order, {row: list(runs[row]) for row in in_order})
    _check_alike(score for row in (reference, *in_order[:-1]) for run in runs[row].values() for score in run.scores)
    for row in in_order:
        for seed, run in runs[row].items():
            _add(study, row, seed, run)
    if not any(reference in by_row for by_row in study.values.values()):
        raise UserError(f"reference={reference}: none of its scores in {scores} has a direction that is good")
    study.measures = dict(sorted(study.measures.items(), key=lambda item: item[1].order))
    study.notes = list(dict.fromkeys([*_missing(study.seeds, reference), *_unlike(runs, reference)]))
    return study


def read_labels(directory: Path) -> dict[str, dict[str, Any]]:
    """The metrics that selfsup.label wrote next to each label table of a directory.

    Raises:
        UserError: there is no such directory, or a file is damaged.
    """
    if not directory.is_dir():
        raise UserError(f"labels={str(directory)!r}: expected the directory of selfsup.label's tables")
    suffix = ".metrics.json"
    return {file.name.removesuffix(suffix): read_json(file) for file in sorted(directory.glob(f"*{suffix}"))}


def _find(scores: Path, rows: Sequence[str]) -> dict[str, dict[int, Path]]:
    files: dict[str, dict[int, Path]] = {row: {} for row in rows}
    for file in sorted(scores.glob("*/*/scores.json")):
        row, seed = file.parts[-3:-1]
        if seed.isdecimal() and (not rows or row in rows):
            files.setdefault(row, {})[int(seed)] = file
    return files


def _check_alike(scores: Iterable[MeasuredScore]) -> None:
    first: dict[str, MeasuredScore] = {}
    for score in scores:
        before = first.setdefault(score.measure.name, score)
        different = difference(before.measure, score.measure)
        if different:
            raise UserError(
                f"{score.file}: {score.measure.name} was measured with {different} as in {before.file}: scores of "
                "two protocols do not compare, evaluate one of them again"
            )


def _add(study: Study, row: str, seed: int, run: RunScores) -> None:
    for score in run.scores:
        study.measures.setdefault(score.measure.name, score.measure)
        study.values.setdefault(score.measure.name, {}).setdefault(row, {})[seed] = score.value
    study.real |= run.real
    method, percent = method_and_percent(row)
    if run.budget is not None and percent and method in WITH_LABELS:
        study.budgets[percent] = run.budget


def _labels_seen(row: str) -> float:
    percent = method_and_percent(row)[1]
    return float("inf") if percent is None else percent


def _missing(seeds: dict[str, list[int]], reference: str) -> Iterator[str]:
    """Rows without scores, seeds that other rows have, and seeds without a partner in the reference."""
    every = sorted({seed for own in seeds.values() for seed in own})
    for row, own in seeds.items():
        lacking = [seed for seed in every if seed not in own]
        alone = [seed for seed in own if seed not in seeds[reference]]
        if lacking:
            yield f"{row} has no scores of {_named(lacking)}"
        if alone:
            yield f"{row}: {_named(alone)} in the means, not in the ratios ({reference} lacks it)"


def _unlike(runs: dict[str, dict[int, RunScores]], reference: str) -> Iterator[str]:
    """What sets a row apart: another number of images seen than the reference's, and scores that it cannot have."""
    usual = {run.nimg for run in runs[reference].values()}
    for row, by_seed in runs.items():
        seen = {run.nimg for run in by_seed.values()}
        if not seen <= usual:
            counts = [" and ".join(f"{count:,}" for count in sorted(those)) for those in (seen, usual)]
            yield f"{row} saw {counts[0]} images, {reference} {counts[1]}: not compared at equal images seen"
        for run in by_seed.values():
            yield from (f"{row} has no {gap}" for gap in run.gaps)
            yield from (f"{name} is not compared: no direction of it is good by itself" for name in run.unknown)


def _named(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
