"""The report on a pipeline: one self-contained HTML page with pictures, curves, tables and commands.

Reads ``report/*.json`` (see reporting/section.py), ``metrics.jsonl``, ``samples/*.png`` and ``config.yaml`` of any
directory, and the records of the stages that submit wrote. It does not depend on what the stages do.
"""

import json
import os
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_atomically
from cluster_jobs.core.progress import duration
from cluster_jobs.reporting import html as page
from cluster_jobs.reporting.curves import read_series

NOT_SEARCHED = ("stages", "checkpoints", "tensorboard", "report", "samples")
FILM = 6


@dataclass
class ReportConfig:
    """Writes ROOT/report.html: one page without any other file, from everything under the root."""

    root: str = option(MISSING, "directory of a pipeline, or of any runs", path=True)
    validate: bool = option(False, "check and print the configuration, then exit")


@command(ReportConfig, single_process=True)
def main(config: ReportConfig) -> None:
    if config.validate:
        return
    root = Path(config.root)
    if not root.is_dir():
        raise UserError(f"root={config.root}: no such directory")
    write_atomically(root / "report.html", render(root).encode())
    print(f"report: {root / 'report.html'}")


def render(root: Path) -> str:
    """The page as text. Raises UserError where there is nothing to show, or something cannot be read."""
    plan = read_json(root / "pipeline.json") if (root / "pipeline.json").is_file() else {}
    stages = {name: stage for name, stage in plan.get("stages", {}).items() if not stage.get("reports")}
    directories = in_order(find(root), root, stages)
    if not directories and not stages:
        raise UserError(f"root={root}: nothing to report (no pipeline, no run, no report/*.json below it)")
    chapters = [(heading(directory, root), chapter(directory)) for directory in directories]
    lead = [str(plan.get("description", ""))]
    if stages:
        html, summary = stages_chapter(root, stages)
        chapters.append(("Stages and commands", html))
        lead.append(summary)
    return page.document(str(plan.get("pipeline") or root.resolve().name), lead, chapters)


def find(root: Path) -> list[Path]:
    """Every directory under the root (itself included) that has metrics, a configuration or sections."""
    directories = []
    for directory, names, files in os.walk(root):
        here = Path(directory)
        if "metrics.jsonl" in files or "config.yaml" in files or any((here / "report").glob("*.json")):
            directories.append(here)
        names[:] = sorted(name for name in names if name not in NOT_SEARCHED and not name.startswith("."))
    return directories


def in_order(directories: list[Path], root: Path, stages: dict[str, Any]) -> list[Path]:
    """The directories in the order of the stages that write them; those of no stage last."""
    outputs = [Path(output) for stage in stages.values() for output in stage.get("outputs", [])]

    def rank(directory: Path) -> tuple[int, Path]:
        holds = (i for i, out in enumerate(outputs) if directory.is_relative_to(out) or out.parent == directory != root)
        return next(holds, len(outputs)), directory

    return sorted(directories, key=rank)


def heading(directory: Path, root: Path) -> str:
    return str(directory.relative_to(root)) if directory != root else "Overview"


def chapter(directory: Path) -> str:
    """The chapter of one directory: sections, samples, curves, configuration."""
    parts = [section(file) for file in sorted((directory / "report").glob("*.json"))]
    samples = sorted((directory / "samples").glob("*.png"))
    if samples:
        parts.append(f"<h3>Samples</h3>{page.picture(samples[-1], sample_caption(samples[-1]))}")
    if len(samples) > 1:
        chosen = {round(i * (len(samples) - 1) / (FILM - 1)): None for i in range(FILM)}
        film = "".join(page.picture(samples[i], sample_caption(samples[i]), natural=False) for i in chosen)
        parts.append(f'<h3>Over training</h3><div class="film">{film}</div>')
    series = read_series(metrics(directory / "metrics.jsonl"))
    if series:
        parts.append(f"<h3>Curves</h3>{page.charts(list(series.values()))}")
    if (directory / "config.yaml").is_file():
        parts.append(page.folded("Configuration", (directory / "config.yaml").read_text(errors="replace")))
    return "".join(parts)


def sample_caption(file: Path) -> str:
    """The caption of a sample picture, which training commands name by the images seen."""
    return f"after {int(file.stem):,} images" if file.stem.isdecimal() else file.stem


def section(file: Path) -> str:
    """One ``report/NAME.json``. Its pictures are in its own directory or below; no other file is read."""
    content = read_json(file)
    try:
        parts = [f"<h3>{escape(str(content['title']))}</h3>", page.paragraph(str(content.get("text") or ""))]
        content_parts = []
        if content.get("table"):
            content_parts.append(page.table(content["table"]["columns"], content["table"]["rows"]))
        for entry in content.get("pictures") or []:
            picture = file.parent / entry["file"]
            if not picture.resolve().is_relative_to(file.parent.resolve()):
                raise UserError(f"{file}: picture {entry['file']!r}: expected a file in {file.parent}")
            content_parts.append(page.picture(picture, str(entry.get("caption") or "")))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{file}: no section of a report ({type(error).__name__}: {error})") from None
    return "".join([*parts, '<div class="shown">', *content_parts, "</div>"])


def metrics(file: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl. A last line that a killed run left incomplete is skipped."""
    lines = file.read_text().splitlines() if file.is_file() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            rows.append(values | {"nimg": float(values["nimg"])})
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise UserError(f"{file}, line {number}: expected a JSON object with nimg") from None
    return rows


def stages_chapter(root: Path, stages: dict[str, Any]) -> tuple[str, str]:
    """How the stages ended and how long they took, with their commands; and a summary in one sentence."""
    rows, commands, total, done = [], [], 0.0, 0
    for name, stage in stages.items():
        directory = root / "stages" / name
        ended = read_json(directory / "exit.json") if (directory / "exit.json").is_file() else {"state": "waiting"}
        took = read_json(directory / "stage.json") if (directory / "stage.json").is_file() else {}
        total += took.get("seconds", 0.0)
        done += ended["state"] == "done"
        time = duration(took["seconds"]) if took else ""
        rows.append([name, ended["state"], time, ", ".join(stage["needs"]), ended.get("message", "")])
        commands.append(page.folded(name, stage["command"], wrap=True))
    columns = ["stage", "state", "time", "after", "message"]
    summary = f"{done} of {len(stages)} stages done; {duration(total)} of work in all."
    return page.table(columns, rows) + "<h3>Commands</h3>" + "".join(commands), summary


if __name__ == "__main__":
    sys.exit(main())
