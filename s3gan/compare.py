"""Compares the rows of a study with one of them, seed by seed: ``python -m s3gan.compare scores=ROOT/scores out=DIR``.

Reads SCORES/ROW/SEED/scores.json of s3gan.evaluate, and writes comparison.json, comparison.csv, comparison.md,
report/figure.png and the report's sections. What is missing is said, so that it may be run at any time of a study.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.core.files import make_parent, write_atomically, write_json
from cluster_jobs.core.output_directory import OutputDirectory
from cluster_jobs.reporting.section import Picture
from s3gan.comparison.figure import draw
from s3gan.comparison.ratios import compare, to_csv, to_json
from s3gan.comparison.study import read_labels, read_study
from s3gan.comparison.tables import caption, markdown, measure_table, write_sections

FIGURE = "figure.png"
PLAIN_WIDTH = 120  # characters of a line in a file or a pipe


@dataclass
class CompareConfig:
    """Mean, spread and paired ratio to a reference of every row of a study, in every score that its runs have."""

    scores: str = option(MISSING, "directory with ROW/SEED/scores.json; a row is METHOD or METHOD_PERCENT", path=True)
    out: str = option(MISSING, "directory to write to", path=True)
    reference: str = option("supervised", "the row that the others are divided by")
    rows: str = option("", "rows to compare, set apart by spaces; by default all that have scores", path=True)
    labels: str = option("", "directory of label tables, for the accuracy of inferred labels", path=True)
    validate: bool = option(False, "check and print the configuration, then exit")


@command(CompareConfig, single_process=True)
def main(config: CompareConfig) -> None:
    if config.validate:
        return
    rows = dict.fromkeys(config.rows.split())
    study = read_study(Path(config.scores), config.reference, list(rows))
    labels = read_labels(Path(config.labels)) if config.labels else {}
    comparison = compare(study, config.reference)
    out = Path(config.out)
    with OutputDirectory(out).locked():
        make_parent(out / "report" / FIGURE)
        write_json(out / "comparison.json", to_json(comparison, labels))
        write_atomically(out / "comparison.csv", to_csv(comparison).encode())
        write_atomically(out / "comparison.md", markdown(comparison, labels, f"report/{FIGURE}").encode())
        write_atomically(out / "report" / FIGURE, draw(comparison))
        write_sections(out, comparison, labels, Picture(FIGURE, caption(comparison)))
    console = Console()
    console.width = max(console.width, PLAIN_WIDTH)
    for name, measure in study.measures.items():
        columns, lines = measure_table(comparison, name)
        table = Table(*columns, box=None)
        for line in lines:
            table.add_row(*map(str, line))
        console.print(f"{measure.title}, {measure.better.value}", table, "", highlight=False)
    print("\n".join([*study.notes, f"written: {out / 'comparison.md'}"]))


if __name__ == "__main__":
    sys.exit(main())
