"""A comparison as people read it: tables for the report, and the same as Markdown for a page of documentation."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster_jobs.reporting.section import Picture, Section
from s3gan.comparison.measures import CAS, Measure
from s3gan.comparison.ratios import Cell, Comparison
from s3gan.comparison.study import method_and_percent
from s3gan.metrics.paired import CONFIDENCE

LABELS = {None: "", 0: "none", 100: "all"}
LABEL_COLUMNS = ("accuracy", "majority accuracy")  # of selfsup.label's metrics, where there are any
HOW_TO_READ = (
    "Means and standard deviations are over training seeds. A ratio is the geometric mean of a row's scores divided by "
    f"the reference's of the same seeds, with its {CONFIDENCE * 100:.0f} % t interval in brackets. A row is better or "
    "worse where the interval excludes 1, and not resolved where it does not: these seeds do not tell them apart then. "
    "Intervals are not corrected for their number: of twenty rows that are equal, about one looks different."
)


def measure_table(comparison: Comparison, name: str) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of one measure; every row of the study has a line."""
    study, cells = comparison.study, comparison.cells[name]
    show = percents if name == CAS else decimals([cell.mean for cell in cells.values()])
    columns = ["row", "labels", "seeds", name, f"ratio to {comparison.reference}", "verdict"]
    rows: list[list[Any]] = []
    if name in study.real:
        rows.append(["real images", "", "", show(study.real[name]), "", ""])
    for row in study.rows:
        cell = cells.get(row)
        texts = ["n/a", "", ""] if cell is None else [spread(cell, show), ratio_text(cell), cell.verdict]
        rows.append([row, labels_of(row), len(cell.values) if cell else 0, *texts])
    return columns, rows


def label_table(labels: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """How right the labels are that somebody inferred, outside the budget."""
    columns = ["table", "method", "labels", "right outside the budget", "right if clusters took their majority"]
    rows = []
    for name, metrics in labels.items():
        shares = [metrics.get(column) for column in LABEL_COLUMNS]
        if any(share is not None for share in shares):
            texts = ["" if share is None else percents(share) for share in shares]
            rows.append([name, metrics.get("method", ""), metrics.get("rows", ""), *texts])
    return columns, rows


def markdown(comparison: Comparison, labels: Mapping[str, Mapping[str, Any]], picture: str) -> str:
    """All of it as one Markdown text."""
    parts = [f"![{caption(comparison)}]({picture})", HOW_TO_READ]
    for name, measure in comparison.study.measures.items():
        parts += [heading(name, measure), _markdown_table(*measure_table(comparison, name))]
    columns, rows = label_table(labels)
    if rows:
        parts += ["**Labels** that were inferred or clustered; higher is better.", _markdown_table(columns, rows)]
    if comparison.study.notes:
        parts += ["Missing or set apart:", "\n".join(f"- {note}" for note in comparison.study.notes)]
    return "\n\n".join(parts) + "\n"


def write_sections(
    out: Path, comparison: Comparison, labels: Mapping[str, Mapping[str, Any]], picture: Picture
) -> None:
    """Writes the report's sections: the figure with all ratios first, then a table for each measure, then labels."""
    measures = comparison.study.measures
    columns = ["row", "labels", "seeds", *measures]
    rows = [
        [row, labels_of(row), len(comparison.study.seeds[row])]
        + [overview(comparison.cells[name].get(row)) for name in measures]
        for row in comparison.study.rows
    ]
    missing = "; ".join(comparison.study.notes)
    text = HOW_TO_READ + (f"\n\nMissing or set apart: {missing}." if missing else "")
    title = f"All rows as ratios to {comparison.reference}"
    Section("comparison", title=title, text=text, columns=columns, rows=rows, pictures=[picture]).write(out)
    for number_, (name, measure) in enumerate(measures.items()):
        columns, rows = measure_table(comparison, name)
        title = f"{name}: {measure.title}"
        Section(
            f"measure_{number_:02d}",
            title=title,
            text=f"{measure.better.value}. {protocol(measure)}".strip(),
            columns=columns,
            rows=rows,
        ).write(out)
    columns, rows = label_table(labels)
    if rows:
        Section("tables", title="Label tables", text="Higher is better.", columns=columns, rows=rows).write(out)


def heading(name: str, measure: Measure) -> str:
    """The heading of a measure's table in Markdown."""
    return f"**`{name}`**, {measure.title}: {measure.better.value}. {protocol(measure)}".strip()


def caption(comparison: Comparison) -> str:
    counts = sorted({len(seeds) for seeds in comparison.study.seeds.values() if seeds})
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"Scores against the share of labels: mean and standard deviation over {number} seeds; horizontal lines are "
        "methods that see no label, and all of them"
    )


def protocol(measure: Measure) -> str:
    """How it was measured, as far as a score says it."""
    known = measure.protocol
    words = []
    if "samples" in known:
        words.append(f"{known['samples']:,} generated against {known['reference']:,} real images ({known['split']})")
    if "detector" in known:
        words.append(f"detector {known['detector']}")
    if "draws" in known:
        words.append(f"mean of {known['draws']} evaluations a run")
    if "test_count" in known:
        words.append(f"{known['test_count']:,} test images")
    return f"{', '.join(words)}.".capitalize() if words else ""


def labels_of(row: str) -> str:
    """The share of the labels that a row saw, in words."""
    percent = method_and_percent(row)[1]
    return LABELS.get(percent, f"{percent} %")


def percents(share: float) -> str:
    """A share in percent."""
    return f"{share * 100:.1f} %"


def decimals(values: Sequence[float]) -> Callable[[float], str]:
    """How the numbers of a column are written: three significant digits for the smallest, as many places for all."""
    smallest = min((abs(value) for value in values if value), default=1.0)
    digits = max(0, 2 - math.floor(math.log10(smallest)))
    return lambda value: f"{value:.{digits}f}"


def spread(cell: Cell, show: Callable[[float], str]) -> str:
    """Mean ± standard deviation."""
    return show(cell.mean) if cell.sd is None else f"{show(cell.mean).removesuffix(' %')} ± {show(cell.sd)}"


def ratio_text(cell: Cell) -> str:
    """The ratio with its interval."""
    ratio = cell.ratio
    if ratio is None:
        return ""
    low, high = ratio.low, ratio.high
    return _factor(ratio.value) + ("" if low is None or high is None else f" [{_factor(low)}, {_factor(high)}]")


def _factor(value: float) -> str:
    """A ratio with three decimals, or with three digits where it is far from 1."""
    return f"{value:.3f}" if 0.1 <= value < 10 else f"{value:.3g}"


def overview(cell: Cell | None) -> str:
    """A cell of the table of all measures."""
    if cell is None:
        return "n/a"
    return f"{cell.ratio.value:.2f} {cell.verdict}" if cell.ratio else cell.verdict


def _markdown_table(columns: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(value).replace("|", "\\|") for value in line) + " |" for line in lines)
