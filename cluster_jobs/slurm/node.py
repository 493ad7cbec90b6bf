"""One node's part of a stage, started by srun once per node: ``python -m cluster_jobs.slurm.node ROOT/stages/NAME``.

Waits for the other nodes, starts the stage's command with the launcher's arguments for this node, and turns a request
to stop (a signal to this process, or the stop file that the batch script touches) into the stop file of the run. The
launcher itself would die of the signals that a cluster sends, and leave its ranks orphaned: it never receives them.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from cluster_jobs.cli.exit_record import EXIT_USER
from cluster_jobs.core.errors import STOP_FILE, UserError
from cluster_jobs.core.files import read_json
from cluster_jobs.pipelines.launch import Node, executable_words, launch_words
from cluster_jobs.pipelines.pipeline import Stage, read_stage
from cluster_jobs.slurm.batch_script import STOP_FILE_VARIABLE
from cluster_jobs.slurm.rendezvous import rendezvous

POLL_SECONDS = 0.5
STOP_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


def main(directory: Path) -> int:
    launch = read_json(directory / "launch.json")
    stage = read_stage(launch["stage"])
    part = os.environ.get("SLURM_ARRAY_TASK_ID")
    if part is not None:
        count = os.environ["SLURM_ARRAY_TASK_COUNT"]
        stage = replace(stage, words=(*stage.words, f"part={part}", f"parts={count}"))
    nodes = int(os.environ["SLURM_JOB_NUM_NODES"])
    node = Node()
    if nodes > 1:
        node = Node(nodes, int(os.environ["SLURM_NODEID"]), os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        try:
            names = os.environ["CLUSTER_JOBS_NODES"].split()
            rendezvous(node.number, names, node.head, node.port, launch["rendezvous_seconds"])
        except UserError as error:
            print(f"cluster_jobs.slurm.node: error: {error}", file=sys.stderr, flush=True)
            return 1  # after a restart the node may be there
    return run(stage, node, Path(os.environ[STOP_FILE_VARIABLE]))


def run(stage: Stage, node: Node, stop_file: Path) -> int:
    """Starts the stage's command, waits for its end, and returns its exit code."""
    requests: list[int] = []
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: requests.append(number))
    command = launch_words(stage, node)
    if node.number == 0:
        if "run.dir" in stage.arguments:  # a request that came after the end of the previous attempt
            (Path(stage.arguments["run.dir"]) / STOP_FILE).unlink(missing_ok=True)
        print(f"$ {shlex.join(command)}", flush=True)
    process = subprocess.Popen(executable_words(command), stdin=subprocess.DEVNULL, preexec_fn=_ignore_requests)
    asked = False
    while process.poll() is None:
        if not asked and (requests or stop_file.exists()):
            asked = ask_to_stop(stage, process)
        time.sleep(POLL_SECONDS)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def ask_to_stop(stage: Stage, process: subprocess.Popen) -> bool:
    """Passes the request on; False where it has to be tried again, because the run has no directory yet."""
    run_dir = stage.arguments.get("run.dir")
    if run_dir is None:
        process.terminate()  # a stage without checkpoints keeps its finished parts
        return True
    if Path(run_dir).is_dir():
        (Path(run_dir) / STOP_FILE).touch()
        return True
    return False


def _ignore_requests() -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m cluster_jobs.slurm.node ROOT/stages/NAME (batch scripts start it)", file=sys.stderr)
        sys.exit(EXIT_USER)
    sys.exit(main(Path(sys.argv[1])))
