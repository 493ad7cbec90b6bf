"""Compares refiners over several seeds: ``python -m simgan.compare scores=ROOT/scores out=DIR``.

Reads SCORES/ROW/SEED/scores.json of ``simgan.evaluate``, task gaze or hand; writes comparison.json and a section of the
report.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.core.output_directory import OutputDirectory
from cluster_jobs.reporting.section import Section
from s3gan.metrics.paired import Ratio, paired_ratio

Scores = dict[str, dict[int, dict[str, Any]]]  # scores.json by row and seed
REFERENCE = "simulated"  # refined images are compared with the same number of simulated ones


@dataclass(frozen=True)
class Measured:
    """The names under which scores.json holds a task's errors and label drift, and the headings of the table."""

    title: str
    error: str  # key of the mean error
    unit: str
    within: str  # key of the share of small errors
    within_column: str
    moved: str  # key of the group whose mean is how far labels moved, in pixels
    moved_column: str


MEASURED = {  # by the key of scores.json that holds the errors of each kind of training images
    "gaze": Measured(
        "Gaze refiners compared", "mean_degrees", "degrees", "within_7_degrees", "within 7°", "iris", "iris moved"
    ),
    "joints": Measured(
        "Hand refiners compared",
        *("mean_pixels", "pixels", "within_5_of_224", "within 5 px of 224", "displacement", "joints moved"),
    ),
}


@dataclass
class RefinerCompareConfig:
    """Mean and standard deviation over seeds of the error on real images, by row and kind of training images."""

    scores: str = option(MISSING, "directory with ROW/SEED/scores.json", path=True)
    out: str = option(MISSING, "directory to write to", path=True)
    validate: bool = option(False, "check and print the configuration, then exit")


@command(RefinerCompareConfig, single_process=True)
def main(config: RefinerCompareConfig) -> None:
    if config.validate:
        return
    group, scores = read_rows(Path(config.scores))
    rows, measured = summarise(group, scores), MEASURED[group]
    out = Path(config.out)
    json_rows = [
        {name: asdict(value) if isinstance(value, Ratio) else value for name, value in row.items()} for row in rows
    ]
    columns, cells = list(rows[0]), [[_cell(value) for value in row.values()] for row in rows]
    text = (
        f"Mean ± standard deviation over seeds; tested on real images. Errors in {measured.unit}, shares in %, "
        "movements in pixels. Ratios to as many simulated images: geometric means over seeds, with 95 % t intervals. "
        "Drifted: seeds whose run is flagged."
    )
    with OutputDirectory(out).locked():
        write_json(out / "comparison.json", {"rows": json_rows})
        Section(group, title=measured.title, text=text, columns=columns, rows=cells).write(out)
    for line in (columns, *cells):
        print("  ".join(f"{cell!s:<16}" for cell in line))


def read_rows(directory: Path) -> tuple[str, Scores]:
    """The key of ``MEASURED`` that all scores hold, and the scores.

    Raises:
        UserError: there are no scores, or they are of another task, of two tasks or of two protocols.
    """
    by_row: Scores = {}
    groups: dict[str, Path] = {}  # each with a file that holds it
    protocols: dict[str, Path] = {}
    for file in sorted(directory.glob("*/*/scores.json")):
        row, seed = file.parts[-3:-1]
        if not seed.isdecimal():
            raise UserError(f"{file}: expected ROW/SEED/scores.json, with a number as the seed")
        scores = read_json(file)
        group = next((name for name in MEASURED if name in scores), None)
        if group is None:
            raise UserError(f"{file}: holds {', '.join(scores)}, expected scores of simgan.evaluate task=gaze or hand")
        groups.setdefault(group, file)
        protocols.setdefault(protocol(group, scores), file)
        by_row.setdefault(row, {})[int(seed)] = scores
    if not by_row:
        raise UserError(f"scores={str(directory)!r}: expected ROW/SEED/scores.json of simgan.evaluate, found none")
    if len(groups) > 1:
        files = ", ".join(f"{group} in {file}" for group, file in groups.items())
        raise UserError(f"{files}: expected the scores of one task")
    if len(protocols) > 1:
        files = "; ".join(f"{file}: {text}" for text, file in protocols.items())
        raise UserError(f"scores of different protocols do not compare: {files}")
    return next(iter(groups)), by_row


def protocol(group: str, scores: dict[str, Any]) -> str:
    """A description of how the estimators of a scores.json were trained and tested."""
    recipe = ", ".join(f"{name} {value}" for name, value in scores["estimator"].items())
    kinds = ", ".join(f"{kind} {row['train_count']}" for kind, row in scores[group].items())
    return f"estimator of {recipe}; trained on {kinds}"


def summarise(group: str, by_row: Scores) -> list[dict[str, Any]]:
    """One table line for each row and kind of training images.

    Lists are the mean over seeds and, for two seeds or more, the standard deviation.
    """
    measured, lines = MEASURED[group], []
    for row, seeds in by_row.items():
        kinds = {seed: scores[group] for seed, scores in seeds.items()}
        for kind in next(iter(kinds.values())):
            errors = {seed: scores[kind][measured.error] for seed, scores in kinds.items()}
            lines.append(
                {
                    "row": row,
                    "trained on": kind,
                    "seeds": len(seeds),
                    "mean error": _spread(list(errors.values())),
                    "ratio to simulated": _ratio(kind, errors, kinds, measured.error),
                    measured.within_column: _spread([100 * each[kind][measured.within] for each in kinds.values()]),
                    measured.moved_column: _spread([scores[measured.moved]["mean"] for scores in seeds.values()]),
                    "drifted": sum(scores["drift"] for scores in seeds.values()),
                }
            )
    return lines


def _ratio(kind: str, errors: dict[int, float], kinds: dict[int, dict[str, Any]], error: str) -> Ratio | None:
    """The ratio of the error of refined images to that of as many simulated ones, paired by seed."""
    reference = kind.replace("refined", REFERENCE)
    if reference == kind:
        return None
    return paired_ratio(errors, {seed: scores[reference][error] for seed, scores in kinds.items()})


def _spread(values: list[float]) -> list[float]:
    """The mean, and the standard deviation where there are two values or more."""
    return [float(np.mean(values)), *([float(np.std(values, ddof=1))] if len(values) > 1 else [])]


def _cell(value: Any) -> Any:
    if isinstance(value, Ratio):
        return f"{value.value:.2f}" + ("" if value.low is None else f" [{value.low:.2f}, {value.high:.2f}]")
    if value is None:
        return ""
    return " ± ".join(f"{number:.2f}" for number in value) if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
