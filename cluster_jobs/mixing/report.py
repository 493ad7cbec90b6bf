"""What a person looks at after a mixture is made: its table of classes and sources, what was dropped, and pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster_jobs.mixing.mixture import Selection
from cluster_jobs.mixing.sources import MixSource
from cluster_jobs.reporting.grids import save_grid
from cluster_jobs.reporting.section import Picture, Section

CLASSES, COLUMNS = 20, 6  # shown at most; columns of each source


def print_table(console: Console, pool: dict[str, Any]) -> None:
    """The counts by class and source, then what was dropped."""
    columns, rows = counts_table(pool)
    table = Table(*columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*(escape(f"{cell:,}" if isinstance(cell, int) else cell) for cell in row))
    console.print(table)
    console.print(dropped_text(pool), markup=False, soft_wrap=True)


def counts_table(pool: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: one row per class (of the first classes), then one for all classes."""
    names = list(pool["sources"])
    counts = pool["counts_by_source"]
    rows = [[label, *(by_source[name] for name in names), pool["counts"][label]] for label, by_source in counts.items()]
    sums = [sum(by_source[name] for by_source in counts.values()) for name in names]
    first_rows = rows[:CLASSES] + (
        [[f"… {len(rows) - CLASSES} more", *[""] * len(names), ""]] if len(rows) > CLASSES else []
    )
    return ["class", *names, "images"], [*first_rows, ["all", *sums, pool["count"]]]


def dropped_text(pool: dict[str, Any]) -> str:
    """What was dropped as a duplicate, what is in the pool more than once, and what was left out, in words."""
    words = []
    for name, kinds in pool["dropped"].items():
        for kind, by in kinds.items():
            words += [f"{count:,} of {name} ({kind}, of {kept})" for kept, count in by.items()]
    text = f"duplicates dropped: {', '.join(words) or 'none'}; images repeated: {pool['repeated']:,}"
    left = [f"{name}: {', '.join(classes)}" for name, classes in pool["classes_left_out"].items() if classes]
    return text + (f"; classes left out: {'; '.join(left)}" if left else "")


def write_report(out: Path, pool: dict[str, Any], sources: list[MixSource], chosen: Selection) -> None:
    """Writes the report's section with a grid: one class per row, the sources next to one another."""
    classes = sources[0].classes
    blank = np.full(sources[0].shards.shape, 255, np.uint8)
    images = []
    for label in range(min(len(classes), CLASSES)):
        for number, source in enumerate(sources):
            members = np.flatnonzero((chosen.label == label) & (chosen.source == number))[:COLUMNS]
            cells = [source.shards.image(int(source.indices[row])) for row in chosen.row[members]]
            images += cells + [blank] * (COLUMNS - len(cells))
    width = COLUMNS * len(sources)
    save_grid(out / "report" / "mix.png", np.stack(images), width, scale=2 if blank.shape[-1] < 64 else 1)
    columns, rows = counts_table(pool)
    shares = ", ".join(f"{name} {share:g}" for name, share in pool["shares"].items())
    Section(
        "mix",
        title="Mixed pool",
        text=f"{pool['count']:,} images, shares: {shares}; {dropped_text(pool)}.",
        columns=columns,
        rows=rows,
        pictures=[Picture("mix.png", f"a class a row; {COLUMNS} columns each of {', '.join(pool['sources'])}")],
    ).write(out)
