"""Shows the state of a pipeline's stages: ``python -m cluster_jobs.status root=RUNS``."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.core.progress import PROGRESS_FILE, duration
from cluster_jobs.pipelines.stage_records import exit_record
from cluster_jobs.slurm import scheduler
from cluster_jobs.slurm.scheduler import QueuedJob
from cluster_jobs.slurm.submission import read_record

COLUMNS = ("stage", "job", "state", "images", "images/s", "left", "restarts", "message")

PLAIN_WIDTH = 200  # characters of a line in a file or a pipe


@dataclass
class StatusConfig:
    """A table of a pipeline's stages: job, state, images seen, rate, time left, restarts."""

    root: str = option(MISSING, "root of a pipeline, wherever it runs", path=True)
    json: str = option("", "write the table as JSON to this file too", path=True)


@command(StatusConfig)
def main(config: StatusConfig) -> None:
    root = Path(config.root)
    if not (root / "pipeline.json").is_file():
        raise UserError(f"root={config.root}: expected the root of a pipeline (no pipeline.json)")
    record = read_record(root)
    jobs = scheduler.jobs() if record else {}
    base = Path(record.get("working_directory", "."))
    stages: dict[str, dict[str, Any]] = read_json(root / "pipeline.json")["stages"]
    rows = [row(root, name, record.get("jobs", {}).get(name), jobs, stage, base) for name, stage in stages.items()]
    if config.json:
        write_json(Path(config.json), rows)
    table = Table(*COLUMNS, box=None, header_style="bold")
    for each in rows:
        table.add_row(*(str(each[column]) for column in COLUMNS))
    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(table)


def row(
    root: Path, name: str, job: str | None, jobs: dict[str, QueuedJob], stage: dict[str, Any], base: Path
) -> dict[str, Any]:
    """The table's row of one stage."""
    record, queued = exit_record(root, name), jobs.get(job or "")
    attempts = read_json(path) if (path := root / "stages" / name / "stage.json").is_file() else {"lives": 0}
    return {
        "stage": name,
        "job": job or "",
        "state": stage_state(record, queued, job),
        "restarts": queued.restarts if queued else max(attempts["lives"] - 1, 0),
        "message": record.get("message") or (queued.reason if queued and queued.state == "PENDING" else ""),
        **training([base / output for output in stage["outputs"]]),
    }


def stage_state(record: dict[str, Any], queued: QueuedJob | None, job: str | None) -> str:
    """One word. Whether a stage is done is taken from its exit record, all else from Slurm."""
    if record.get("state") == "done":
        return "done"
    if queued and (queued.active or queued.state not in ("COMPLETED", "UNKNOWN")):
        return queued.state.lower()
    if job:
        return "failed" if record.get("state") == "failed" else "ended"
    return str(record.get("state", "waiting"))


def training(outputs: list[Path]) -> dict[str, str]:
    """Images seen, rate and time left of a stage that trains; empty for one that does not."""
    for output in outputs:
        if (output / PROGRESS_FILE).is_file():
            progress = read_json(output / PROGRESS_FILE)
            rate, left = progress["images_per_second"], progress["seconds_left"]
            return {
                "images": f"{progress['nimg']:,} of {progress['total_nimg']:,}",
                "images/s": f"{rate:,.0f}" if rate else "",
                "left": duration(left) if left else "",
            }
    return {"images": "", "images/s": "", "left": ""}


if __name__ == "__main__":
    sys.exit(main())
