"""Cancels the jobs of a pipeline on Slurm: ``python -m cluster_jobs.cancel root=RUNS``."""

import sys
from dataclasses import dataclass

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.slurm import scheduler, submission


@dataclass
class CancelConfig:
    """Cancels queued and running jobs. What they saved stays: cluster_jobs.resubmit continues from there."""

    root: str = option(MISSING, "root of a pipeline that was submitted with cluster=slurm", path=True)
    stage: str = option("", "one stage only; jobs that depend on it end with it")


@command(CancelConfig)
def main(config: CancelConfig) -> None:
    root, record = submission.submitted_root(config.root)
    queued = submission.queued_jobs(root)
    if config.stage and config.stage not in record["jobs"]:
        raise UserError(f"stage={config.stage}: expected one of {', '.join(record['jobs'])}")
    chosen = {name: job for name, job in queued.items() if config.stage in ("", name)}
    scheduler.cancel(list(chosen.values()))
    for name, job in chosen.items():
        print(f"cancelled {name} (job {job})")
    if not chosen:
        print("nothing to cancel: no job is queued or running")


if __name__ == "__main__":
    sys.exit(main())
