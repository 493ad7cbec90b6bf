"""The comparison of a study: every row's mean and spread, and its ratio to the reference, paired by seed."""

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from s3gan.comparison.study import Study, method_and_percent
from s3gan.metrics.paired import CONFIDENCE, Better, Ratio, mean_and_sd, paired_ratio


@dataclass(frozen=True)
class Cell:
    """One row in one measure."""

    values: dict[int, float]  # by seed
    mean: float
    sd: float | None  # None for one seed
    ratio: Ratio | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    study: Study
    reference: str
    cells: dict[str, dict[str, Cell]]  # by measure and row; a row without a value has none


def compare(study: Study, reference: str) -> Comparison:
    """Compares every row with the reference, in every measure."""
    cells = {
        name: {
            row: _cell(study.values[name][row], study.values[name].get(reference, {}), row == reference, measure.better)
            for row in study.rows
            if row in study.values[name]
        }
        for name, measure in study.measures.items()
    }
    return Comparison(study, reference, cells)


def _cell(values: dict[int, float], base: Mapping[int, float], is_reference: bool, better: Better) -> Cell:
    mean, sd = mean_and_sd(list(values.values()))
    if is_reference:
        return Cell(values, mean, sd, None, "reference")
    ratio = paired_ratio(values, base)
    if ratio is not None:
        return Cell(values, mean, sd, ratio, ratio.verdict(better))
    return Cell(values, mean, sd, None, "no ratio: not above 0" if values.keys() & base.keys() else "no pair")


def to_json(comparison: Comparison, labels: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, as plain values."""
    study = comparison.study
    return {
        "reference": comparison.reference,
        "confidence": CONFIDENCE,
        "rows": {
            row: {
                "method": method_and_percent(row)[0],
                "percent": method_and_percent(row)[1],
                "seeds": study.seeds[row],
            }
            for row in study.rows
        },
        "measures": {
            name: {
                "title": measure.title,
                "better": measure.better.name,
                "protocol": measure.protocol,
                "real": study.real.get(name),
                "rows": {row: asdict(cell) for row, cell in comparison.cells[name].items()},
            }
            for name, measure in study.measures.items()
        },
        "labels": dict(labels),
        "notes": study.notes,
    }


CSV_COLUMNS: tuple[str, ...] = ("measure", "better", "row", "method", "percent", "seeds", "mean", "sd")
CSV_COLUMNS += ("ratio", "low", "high", "pairs", "verdict", "values")


def to_csv(comparison: Comparison) -> str:
    """A line for every measure and row; an empty field is not known. `values` are SEED:VALUE, set apart by spaces."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for name, rows in comparison.cells.items():
        for row, cell in rows.items():
            method, percent = method_and_percent(row)
            ratio = cell.ratio
            writer.writerow(
                {
                    "measure": name,
                    "better": comparison.study.measures[name].better.name,
                    "row": row,
                    "method": method,
                    "percent": percent,
                    "seeds": len(cell.values),
                    "mean": cell.mean,
                    "sd": cell.sd,
                    "ratio": ratio and ratio.value,
                    "low": ratio and ratio.low,
                    "high": ratio and ratio.high,
                    "pairs": ratio and ratio.pairs,
                    "verdict": cell.verdict,
                    "values": " ".join(f"{seed}:{value!r}" for seed, value in cell.values.items()),
                }
            )
    return stream.getvalue()
