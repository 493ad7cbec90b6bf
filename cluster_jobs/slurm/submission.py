"""Submits a pipeline to Slurm: each stage becomes a job, each edge a dependency; ROOT/slurm.json records them.

Everything is composed and checked once, here on the login node, before the first job is queued; ROOT/stages/NAME keeps
what was checked (``config.yaml``), what the nodes start (``launch.json``) and the batch script (``job.sh``).
"""

import dataclasses
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_atomically, write_json
from cluster_jobs.pipelines.pipeline import Pipeline
from cluster_jobs.pipelines.stage_records import finished, validate
from cluster_jobs.slurm import scheduler
from cluster_jobs.slurm.batch_script import BatchJob, batch_script, check_job, on_nodes, sbatch_words
from cluster_jobs.slurm.site import Site

RECORD = "slurm.json"


def plan_jobs(pipeline: Pipeline, root: Path, site: Site) -> dict[str, BatchJob]:
    """The batch job of every stage. Raises UserError for text that Slurm cannot take."""
    batch_jobs = {
        name: BatchJob(
            on_nodes(stage), site, pipeline.name, root.absolute() / "stages" / name, Path.cwd(), sys.executable
        )
        for name, stage in pipeline.stages.items()
    }
    for job in batch_jobs.values():
        check_job(job)
    return batch_jobs


def dry_run(pipeline: Pipeline, root: Path, site: Site) -> str:
    """All batch scripts and the commands that would submit them."""
    done = finished(pipeline, root)
    jobs = {name: job for name, job in plan_jobs(pipeline, root, site).items() if name not in done}
    validate([job.stage for job in jobs.values()])
    texts = [f"# {name} is finished" for name in pipeline.stages if name in done]
    for job in jobs.values():
        after = [f"JOB_OF_{need}" for need in job.stage.needs if need in jobs]
        texts.append(f"# --- {job.script}\n{batch_script(job)}\n# submitted by\n{shlex.join(sbatch_words(job, after))}")
    return "\n\n".join(texts)


def submit(pipeline: Pipeline, root: Path, site: Site, request: dict[str, Any]) -> dict[str, str]:
    """Submits every stage that is neither finished nor in the queue; returns the new jobs' ids by stage. The caller
    holds the root's lock (:func:`cluster_jobs.pipelines.stage_records.locked`).

    Args:
        request: what `resubmit` needs to ask for the same again; kept in the record.

    Raises:
        UserError: a refused command (nothing is queued), or sbatch's refusal (what this call queued is cancelled).
    """
    planned = plan_jobs(pipeline, root, site)
    done, queued = finished(pipeline, root), queued_jobs(root)
    new = {name: job for name, job in planned.items() if name not in done and name not in queued}
    print(f"{root}: {len(done)} stages finished, {len(queued)} queued, checking the commands of {len(new)}")
    checked = validate([job.stage for job in new.values()])
    for name, job in new.items():
        _write(job, checked[name])
    record = read_record(root)
    record |= request | {"working_directory": str(Path.cwd()), "jobs": record.get("jobs", {})}
    submitted: dict[str, str] = {}
    for name, job in new.items():
        ids = queued | submitted
        try:
            submitted[name] = scheduler.submit(
                sbatch_words(job, [ids[need] for need in job.stage.needs if need in ids])
            )
        except UserError as error:
            scheduler.cancel(list(submitted.values()))
            raise UserError(
                f"stage {name!r}: {error}; the {len(submitted)} jobs that were queued before it are cancelled"
            ) from None
        record["jobs"][name] = submitted[name]
        write_json(root / RECORD, record)  # after each: a job without a record could not be cancelled
    return submitted


def _write(job: BatchJob, configuration: str) -> None:
    job.directory.mkdir(parents=True, exist_ok=True)
    for stale in [job.directory / "exit.json", *job.directory.glob("exit.json-*")]:
        stale.unlink(missing_ok=True)
    settings = {"rendezvous_seconds": job.site.rendezvous_seconds, "restarts": job.site.restarts}
    write_json(job.directory / "launch.json", {"stage": dataclasses.asdict(job.stage), **settings})
    write_atomically(job.directory / "config.yaml", configuration.encode())
    write_atomically(job.script, batch_script(job).encode())


def read_record(root: Path) -> dict[str, Any]:
    """ROOT/slurm.json; empty where nothing was submitted."""
    return read_json(root / RECORD) if (root / RECORD).is_file() else {}


def queued_jobs(root: Path) -> dict[str, str]:
    """The stages whose jobs are still to run or running, with the jobs' ids."""
    mine = read_record(root).get("jobs", {})
    if not mine:
        return {}
    known = scheduler.jobs()
    return {name: job for name, job in mine.items() if job in known and known[job].active}


def submitted_root(root: str) -> tuple[Path, dict[str, Any]]:
    """The root of a submitted pipeline, absolute, and its record. Goes to the directory that it was submitted from, as
    the paths in its commands may be relative to that.

    Raises:
        UserError: nothing was submitted from there.
    """
    path = Path(root).absolute()  # before the change of directory
    record = read_record(path)
    if not record:
        raise UserError(
            f"root={root}: expected the root of a pipeline that submit cluster=slurm was given (no {RECORD})"
        )
    os.chdir(record["working_directory"])
    return path, record


def summary(root: Path, submitted: dict[str, str]) -> str:
    """What was submitted, and how to follow it."""
    width = max((len(name) for name in submitted), default=0)
    lines = [f"  {name:<{width}}  job {job}" for name, job in submitted.items()]
    word = shlex.quote(f"root={root}")
    follow = [
        f"python -m cluster_jobs.status {word}    # how far every stage is",
        f"python -m cluster_jobs.logs {word} stage=NAME    # the end of its log",
        f"python -m cluster_jobs.cancel {word}    # end all of it; resubmit continues",
    ]
    return "\n".join([f"{len(submitted)} jobs submitted", *lines, *follow])
