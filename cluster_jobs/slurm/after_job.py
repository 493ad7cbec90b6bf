"""Decides what follows an attempt of a job: success, failure, or a requeue, which continues from the last checkpoint.

A batch script ends with ``python -m cluster_jobs.slurm.after_job ROOT/stages/NAME SECONDS`` and exits as it does. A job
is requeued from inside, while it still runs, unless its command refused the user's input; never after scancel (the
controller then no longer calls it running), never more often than its site allows, and not when the last attempt was
itself a restart and made no progress.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from cluster_jobs.cli.exit_record import EXIT_DONE, EXIT_FILE_VARIABLE, EXIT_PREEMPTED, EXIT_USER, add_attempt
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.pipelines.pipeline import Stage, read_stage
from cluster_jobs.slurm import scheduler

END_SECONDS = 600.0  # a requeued job is ended by its node, after a while


def main(directory: Path, seconds: float) -> int:
    launch = read_json(directory / "launch.json")
    stage = read_stage(launch["stage"])
    exit_file = Path(os.environ[EXIT_FILE_VARIABLE])
    record = read_json(exit_file) if exit_file.is_file() else {}
    job, restarts = os.environ["SLURM_JOB_ID"], int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    add_attempt(directory, stage.command, seconds)
    if record.get("state") == "done":
        if exit_file.name != "exit.json":
            finish_array(directory, stage)
        return EXIT_DONE
    why = record["message"] if record.get("code") is not None else "ended without an exit record (killed?)"
    if record.get("code") == EXIT_USER:
        return say(f"failed: {why}; not requeued, because another attempt would fail in the same way", EXIT_USER)
    state = scheduler.state(job)
    if state != "RUNNING":
        return say(f"{why}; not requeued, because the job is {state.lower()}: it was cancelled or requeued", 1)
    reached, before = progress(stage), note(directory / f"lives-{job}.json", restarts, stage)
    if restarts >= launch["restarts"]:
        return say(f"failed: {why}; not requeued, after {restarts} restarts (restarts={launch['restarts']})", 1)
    if restarts > 0 and reached <= before:
        return say(
            f"failed: {why}; not requeued, because attempt {restarts + 1} brought it no further than {reached:,}", 1
        )
    say(f"{why}; requeued at {reached:,} after attempt {restarts + 1}", EXIT_PREEMPTED)
    scheduler.requeue(job)
    time.sleep(END_SECONDS)
    return EXIT_PREEMPTED


def say(text: str, code: int) -> int:
    print(f"cluster_jobs.slurm.after_job: {text}", flush=True)
    return code


def progress(stage: Stage) -> int:
    """How far a stage is, as a number that only grows: images seen at the newest checkpoint (plus those of training
    discarded by rollbacks), or finished shards.
    """
    arguments = stage.arguments
    if "run.dir" in arguments:
        manifests = Path(arguments["run.dir"], "checkpoints").glob("[0-9]*.json")
        whole = (path for path in manifests if path.with_suffix(".safetensors").is_file())
        return max((int(path.stem) + _abandoned(path) for path in whole), default=0)
    return sum(1 for _ in Path(arguments["out"]).glob("**/*.tar")) if "out" in arguments else 0


def _abandoned(manifest: Path) -> int:
    """Images of training discarded by rollbacks before this checkpoint; 0 if the manifest file is damaged."""
    try:
        return read_json(manifest).get("abandoned_nimg", 0)
    except UserError:
        return 0


def note(file: Path, restarts: int, stage: Stage) -> int:
    """Records the progress of this attempt, and returns that of the attempt before it."""
    before: dict[str, Any] = read_json(file) if file.is_file() else {}
    # "life" here and "lives" in file names are a former name of attempts; the file format keeps it
    write_json(file, {"life": restarts, "reached": progress(stage)})
    return int(before.get("reached", 0))


def finish_array(directory: Path, stage: Stage) -> None:
    """Writes the stage's own exit record once every task of its array is done."""
    records = [read_json(path) for path in directory.glob("exit.json-*")]
    if sum(record["state"] == "done" for record in records) == stage.resources.array:
        write_json(
            directory / "exit.json", {"state": "done", "code": EXIT_DONE, "message": "", "command": stage.command}
        )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(
            "usage: python -m cluster_jobs.slurm.after_job ROOT/stages/NAME SECONDS (batch scripts end so)",
            file=sys.stderr,
        )
        sys.exit(EXIT_USER)
    try:
        sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
    except UserError as error:
        print(f"cluster_jobs.slurm.after_job: error: {error}", file=sys.stderr)
        sys.exit(1)
