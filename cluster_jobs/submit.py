"""Runs a pipeline, a graph of commands: all are checked before any starts, and finished ones are skipped."""

import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_json
from cluster_jobs.pipelines.launch import shown_command
from cluster_jobs.pipelines.local import Local, StageFailed
from cluster_jobs.pipelines.pipeline import Pipeline, load
from cluster_jobs.pipelines.stage_records import finished, locked, validate
from cluster_jobs.slurm import submission
from cluster_jobs.slurm.site import read_site


class Cluster(Enum):
    local = "local"
    slurm = "slurm"


@dataclass
class SubmitConfig:
    """Runs a pipeline of stages. Running the command again resumes it."""

    pipeline: str = option(MISSING, "a pipeline in cluster_jobs/conf/pipeline, or the path of a YAML file", path=True)
    root: str = option(MISSING, "directory of everything that the pipeline makes", path=True)
    cluster: Cluster = option(Cluster.local, "where the stages run: processes of this machine, or jobs of Slurm")
    vars: str = option("", "other values for the pipeline's vars: 'name=value name=value'", path=True)
    only: str = option(
        "", "stages to run, with all that they need: patterns such as 'gan_* scores_?'; all by default", path=True
    )
    parallel: int = option(0, "local: stages that run at once; 0 takes the pipeline's number")
    site: str = option("default", "slurm: a site in cluster_jobs/conf/site, or the path of a YAML file", path=True)
    dry_run: bool = option(False, "slurm: print every batch script and sbatch command, submit nothing")
    validate: bool = option(False, "check every command, print the plan, then exit")


def plan(pipeline: Pipeline) -> dict[str, Any]:
    """The content of ROOT/pipeline.json, in the order of the stages; the report reads it."""
    stages = {
        name: {
            "command": shown_command(stage),
            "needs": list(stage.needs),
            "outputs": [str(output) for output in stage.outputs],
            "reports": stage.module == "cluster_jobs.report",
        }
        for name, stage in pipeline.stages.items()
    }
    return {"pipeline": pipeline.name, "description": pipeline.description, "stages": stages}


@command(SubmitConfig)
def main(config: SubmitConfig) -> None:
    if config.parallel < 0:
        raise UserError(f"parallel={config.parallel}: expected a positive number, or 0 for the pipeline's")
    root, site = Path(config.root), read_site(config.site)
    pipeline = load(config.pipeline, str(root), config.vars)
    part = pipeline.part(config.only)
    if config.dry_run:
        print(submission.dry_run(part, root, site))
        return
    if config.validate:
        done = finished(part, root)
        validate([stage for name, stage in part.stages.items() if name not in done])
        for name, stage in part.stages.items():
            print(f"# {name}{' (finished)' if name in done else ''}\n{shown_command(stage)}")
        return
    with locked(root) as lock:
        finished(pipeline, root)  # a changed command is refused before the plan is replaced
        write_json(root / "pipeline.json", plan(pipeline))
        if config.cluster is Cluster.slurm:
            request = {name: getattr(config, name) for name in ("pipeline", "root", "vars", "only", "site")}
            print(submission.summary(root, submission.submit(part, root, site, request)))
            return
        try:
            Local(part, root, config.parallel or pipeline.parallel).run(lock)
        except StageFailed as failure:
            print(f"cluster_jobs.submit: {failure}", file=sys.stderr, flush=True)
            raise SystemExit(2 if failure.code == 2 else 1) from None


if __name__ == "__main__":
    sys.exit(main())
