"""The rows of a study of gaze refiners over their seeds: ``python -m simgan.compare scores=ROOT/scores out=DIR``.

Reads SCORES/ROW/SEED/scores.json of ``simgan.evaluate task=gaze``; writes comparison.json and a section of the report.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.config import MISSING, command, key
from cluster_jobs.errors import UserError
from cluster_jobs.files import read_json, write_json
from cluster_jobs.sections import write_section


@dataclass
class CompareConfig:
    """Mean and spread over seeds of the gaze error on real images, of each row and of what was trained on."""

    scores: str = key(MISSING, "directory with ROW/SEED/scores.json", path=True)
    out: str = key(MISSING, "directory to write to", path=True)
    validate: bool = key(False, "check and print the configuration, then exit")


@command(CompareConfig)
def main(config: CompareConfig) -> None:
    if config.validate:
        return
    rows = summarise(read_rows(Path(config.scores)))
    out = Path(config.out)
    (out / "report").mkdir(parents=True, exist_ok=True)
    write_json(out / "comparison.json", {"rows": rows})
    columns = ["row", "trained on", "seeds", "mean error", "within 7°", "iris moved", "drifted"]
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    text = "Mean ± standard deviation over seeds; tested on real images. Drifted: seeds whose run is flagged."
    write_section(out, "gaze", title="Gaze refiners compared", text=text, columns=columns, rows=cells)
    for line in (columns, *cells):
        print("  ".join(f"{cell!s:<16}" for cell in line))


def read_rows(directory: Path) -> dict[str, list[dict[str, Any]]]:
    """The scores of every row, one a seed. Raises UserError where there are none, or of another task."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(directory.glob("*/*/scores.json")):
        scores = read_json(file)
        if "gaze" not in scores:
            raise UserError(f"{file}: holds {', '.join(scores)}, expected scores of simgan.evaluate task=gaze")
        found.setdefault(file.parts[-3], []).append(scores)
    if not found:
        raise UserError(f"scores={str(directory)!r}: expected ROW/SEED/scores.json of simgan.evaluate, found none")
    return found


def summarise(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A line for each row and each kind of training images; pairs are (mean, standard deviation) over seeds."""
    lines: list[dict[str, Any]] = []
    for row, seeds in found.items():
        for kind in seeds[0]["gaze"]:
            lines.append(
                {
                    "row": row,
                    "trained on": kind,
                    "seeds": len(seeds),
                    "mean error": _spread([scores["gaze"][kind]["mean_degrees"] for scores in seeds]),
                    "within 7°": _spread([100 * scores["gaze"][kind]["within_7_degrees"] for scores in seeds]),
                    "iris moved": _spread([scores["iris"]["mean"] for scores in seeds]),
                    "drifted": sum(scores["drift"] for scores in seeds),
                }
            )
    return lines


def _spread(values: list[float]) -> list[float]:
    return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0]


def _cell(value: Any) -> Any:
    return f"{value[0]:.2f} ± {value[1]:.2f}" if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
