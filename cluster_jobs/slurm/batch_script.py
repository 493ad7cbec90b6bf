"""The batch script of a stage, as text made from typed settings.

Directives hold only values that need no quoting; paths are quoted in the shell part, and are words of `sbatch_words`,
which no shell reads. The script starts one task per node (`cluster_jobs.slurm.node`), turns signals into a stop file,
and ends with `cluster_jobs.slurm.after_job`, which decides what follows.
"""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from cluster_jobs.cli.exit_record import EXIT_FILE_VARIABLE
from cluster_jobs.core.errors import STOP_FILE, UserError
from cluster_jobs.pipelines.launch import launch_environment
from cluster_jobs.pipelines.pipeline import Stage
from cluster_jobs.slurm.site import Site

STOP_FILE_VARIABLE = "CLUSTER_JOBS_STOP_FILE"  # names a file whose existence is a request to save and stop


@dataclass(frozen=True)
class BatchJob:
    """One stage as a job. Paths are absolute: a job may start anywhere."""

    stage: Stage  # as `on_nodes` makes it
    site: Site
    pipeline: str
    directory: Path  # ROOT/stages/NAME
    working_directory: Path
    python: str

    @property
    def name(self) -> str:
        return f"{self.pipeline}-{self.stage.name}"

    @property
    def script(self) -> Path:
        return self.directory / "job.sh"


def on_nodes(stage: Stage) -> Stage:
    """The stage with as many processes as a node of its job runs: one for each GPU, or its own number without any."""
    return replace(stage, processes=stage.resources.gpus or stage.processes)


def check_job(job: BatchJob) -> None:
    """Raises UserError for text that neither Slurm nor a comment in the script can contain."""
    texts = {"job name": job.name, "root": str(job.directory), "working directory": str(job.working_directory)}
    for what, text in texts.items():
        if not text.isprintable() or "\\" in text:
            raise UserError(f"{what} {text!r}: expected no control characters and no backslash, for cluster=slurm")
    for word in job.stage.words:
        if not word.isprintable():
            raise UserError(f"stage {job.stage.name!r}: {word!r}: expected no control characters, for cluster=slurm")


def sbatch_words(job: BatchJob, after: list[str]) -> list[str]:
    """The command that submits the script. It needs no shell.

    Args:
        after: ids of the jobs that must have succeeded first.
    """
    words = ["sbatch", "--parsable", f"--job-name={job.name}"]
    words.append(f"--output={str(job.directory / 'log.txt').replace('%', '%%')}")  # % begins a replacement symbol
    if after:
        words += [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"]
    return [*words, *job.site.options, str(job.script)]


def batch_script(job: BatchJob) -> str:
    """The text of the script, for bash.

    The port of the rendezvous depends on the job and its restarts, as that of the previous attempt may not be free yet;
    it stays below 32768, where the range of ephemeral ports begins.
    """
    stage, site, quote = job.stage, job.site, shlex.quote
    stop, exit_file = quote(str(job.directory / STOP_FILE)), quote(str(job.directory / "exit.json"))
    directory, on_node = quote(str(job.directory)), shlex.join([*site.container, site.python or job.python])
    variables = {"PYTHONUNBUFFERED": "1"} | launch_environment(
        stage, gpus=stage.resources.gpus > 0, nodes=stage.resources.nodes
    )
    if stage.resources.array > 1:
        stop, exit_file = (f'{path}-"$SLURM_ARRAY_TASK_ID"' for path in (stop, exit_file))
    exports = "\n".join(f"export {name}={quote(value)}" for name, value in sorted(variables.items()))
    modules = "".join(f"module load {quote(module)}\n" for module in site.modules)
    lines = "".join(f"{line}\n" for line in site.environment)
    return f"""\
#!/bin/bash
{_directives(job)}
# stage {stage.name} of a pipeline; one process alone would be
#   {stage.command}

cd {quote(str(job.working_directory))} || exit 1
{modules}{exports}
CLUSTER_JOBS_NODES=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tr '\\n' ' ')
MASTER_ADDR=${{CLUSTER_JOBS_NODES%% *}}
{lines}[ -n "$MASTER_ADDR" ] || {{ echo "no host names for the nodes $SLURM_JOB_NODELIST" >&2; exit 1; }}
export CLUSTER_JOBS_NODES MASTER_ADDR MASTER_PORT=$((20000 + (SLURM_JOB_ID * 7 + ${{SLURM_RESTART_COUNT:-0}}) % 12000))
export {EXIT_FILE_VARIABLE}={exit_file} {STOP_FILE_VARIABLE}={stop}

rm -f -- {stop} {exit_file}
stop() {{ touch -- {stop}; }}
trap stop USR1 USR2 TERM
srun --kill-on-bad-exit=1 --nodes={stage.resources.nodes} --ntasks-per-node=1 \\
  {on_node} -m cluster_jobs.slurm.node {directory} &
step=$!
wait "$step"
while kill -0 "$step" 2>/dev/null; do wait "$step"; done  # a signal ends a wait, not the step
{quote(job.python)} -m cluster_jobs.slurm.after_job {directory} "$SECONDS"
"""


def _directives(job: BatchJob) -> str:
    stage, site, asked = job.stage, job.site, job.stage.resources
    options = {
        "nodes": asked.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": asked.cpus or stage.processes * max(stage.threads, 1),
        "gpus-per-node": asked.gpus,
        "mem": asked.memory or site.memory,
        "time": asked.time or site.time,
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "array": f"0-{asked.array - 1}" if asked.array > 1 else "",
        "signal": f"B:USR1@{site.grace_seconds}",
        "open-mode": "append",
    }
    return "\n".join(["#SBATCH --requeue", *(f"#SBATCH --{name}={value}" for name, value in options.items() if value)])
