"""Submits the unfinished stages of a pipeline to Slurm again: ``python -m cluster_jobs.resubmit root=RUNS``."""

import sys
from dataclasses import dataclass
from pathlib import Path

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.pipelines.pipeline import load
from cluster_jobs.pipelines.stage_records import locked
from cluster_jobs.slurm import submission
from cluster_jobs.slurm.site import read_site


@dataclass
class ResubmitConfig:
    """Queues every stage that is neither finished nor in the queue, as the pipeline was submitted before."""

    root: str = option(MISSING, "root of a pipeline that was submitted with cluster=slurm", path=True)


@command(ResubmitConfig)
def main(config: ResubmitConfig) -> None:
    _, record = submission.submitted_root(config.root)
    record = {"only": "", **record}  # a record from before there was `only`
    request = {name: record[name] for name in ("pipeline", "root", "vars", "only", "site")}
    root = Path(record["root"])
    part = load(record["pipeline"], str(root), record["vars"]).part(record["only"])
    site = read_site(record["site"])
    with locked(root):
        print(submission.summary(root, submission.submit(part, root, site, request)))


if __name__ == "__main__":
    sys.exit(main())
