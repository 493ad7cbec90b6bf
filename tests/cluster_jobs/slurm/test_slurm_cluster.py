"""A real Slurm of two nodes: whole pipelines, runs disturbed in every way that clusters know, and the doctor's visit.

One file, so that one test process has the Slurm.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from cluster_jobs.core.files import read_json
from cluster_jobs.diagnostics.findings import Finding
from cluster_jobs.pipelines.pipeline import BUILT_IN
from s3gan.generate import main as generate
from tests.cluster_jobs.slurm.slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]
REPOSITORY = Path(__file__).parents[3]
HOSTILE = "a b'c\"d$(touch e);g%j#h=é"
SITE = {
    "environment": [
        "export MASTER_ADDR=127.0.0.1 GLOO_SOCKET_IFNAME=lo",  # the nodes' names resolve nowhere
        '[ "$SLURM_JOB_NAME:${SLURM_RESTART_COUNT:-0}" != pipeline-hung:0 ] || export TOY_HANG_AT_NIMG=60',
        'case "$SLURM_JOB_NAME" in *-requeued|*-signalled|*-killed|*-gan) export TOY_WAIT_AT_NIMG=24;; esac',
    ],
    "grace_seconds": 60,
}


@pytest.fixture(autouse=True)
def idle(slurm: SlurmCluster) -> Iterator[None]:
    yield
    slurm.cancel_all()


class Submitted:
    """A pipeline file under ``tmp_path`` and the commands that work on its root."""

    def __init__(
        self, slurm: SlurmCluster, directory: Path, stages: dict, name: str = "pipeline", **keys: object
    ) -> None:
        self.slurm, self.root, self.file = slurm, directory / "root", directory / f"{name}.yaml"
        directory.mkdir(parents=True, exist_ok=True)
        self.file.write_text(yaml.safe_dump({"threads": 1, "stages": stages, **keys}, sort_keys=False))
        self.site = directory / "site.yaml"
        self.site.write_text(yaml.safe_dump(SITE))

    def call(self, command: str, *words: str, code: int = 0) -> str:
        """Runs a command on the pipeline's root; what it printed."""
        words = (f"root={self.root}", *words)
        if command == "submit":
            words = (f"pipeline={self.file}", "cluster=slurm", f"site={self.site}", *words)
        python = [sys.executable, "-m", f"cluster_jobs.{command}", *words]
        ended = self.slurm.run(python, {"PYTHONPATH": str(REPOSITORY)})
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def job(self, stage: str) -> str:
        return read_json(self.root / "slurm.json")["jobs"][stage]

    def wait(self, stage: str, *states: str, timeout: float = 800) -> None:
        self.slurm.wait(self.job(stage), *states, timeout=timeout)

    def log(self, stage: str) -> str:
        return (self.root / "stages" / stage / "log.txt").read_text()

    def status(self) -> dict[str, dict]:
        self.call("status", f"json={self.root}/status.json")
        return {row["stage"]: row for row in read_json(self.root / "status.json")}


def toy(*needs: str, **arguments: object) -> dict:
    return {"module": "tests.cluster_jobs.toy_stage", "needs": list(needs), "args": arguments}


def training(data: Path, name: str, nodes: int = 2, seconds: float = 0.15, **resources: object) -> dict:
    sizes = {"batch": 4, "total_nimg": 320, "checkpoint_nimg": 20, "log_nimg": 20, "step_seconds": seconds}
    arguments = {"data": str(data), "run.dir": f"${{root}}/{name}", **sizes}
    return {"module": "tests.cluster_jobs.toy_train", "args": arguments, "resources": {"nodes": nodes, **resources}}


def final_weights(run: Path) -> bytes:
    return (run / "checkpoints" / "000000000320.safetensors").read_bytes()


def until(condition: Callable[[], bool], what: str, timeout: float = 400) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(0.1)


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("*.json"))


def rank_process(run: Path, rank: int) -> int:
    """The id of the process that trains as this rank of a run."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
            variables = (directory / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"run.dir={run}".encode() in words and f"RANK={rank}".encode() in variables:
            return int(directory.name)
    raise AssertionError(f"no process is rank {rank} of {run}")


def test_runs_that_are_disturbed_end_by_themselves_with_the_weights_of_one_that_is_not(
    slurm: SlurmCluster, tmp_path: Path, tiny_directory: Path
) -> None:
    stages = {name: training(tiny_directory, name) for name in ("calm", "requeued", "signalled", "killed")}
    stages["hung"] = training(tiny_directory, "hung")
    stages["hung"]["args"]["watchdog_seconds"] = 20
    stages["timed"] = training(tiny_directory, "timed", seconds=1.7, time="3")  # warned 60 s before its end
    pipeline = Submitted(slurm, tmp_path, stages)
    pipeline.call("submit")
    disturbances: dict[str, Callable[[str], object]] = {
        "requeued": lambda job: slurm.run(["scontrol", "requeue", job]),
        "signalled": lambda job: slurm.run(["scancel", "--signal=USR1", job]),
        "killed": lambda job: os.kill(rank_process(pipeline.root / "killed", 1), signal.SIGKILL),
    }
    for name, disturb in disturbances.items():  # each waits after its first checkpoint, until it may go on
        until(lambda name=name: len(checkpoints(pipeline.root / name)) > 0, f"a checkpoint of {name}")  # type: ignore[misc]
        disturb(pipeline.job(name))
        (pipeline.root / name / "go").touch()
    for name in stages:
        pipeline.wait(name, "COMPLETED")
        assert final_weights(pipeline.root / name) == final_weights(pipeline.root / "calm"), name
    rows = pipeline.status()
    assert {name: row["state"] for name, row in rows.items()} == dict.fromkeys(stages, "done")
    assert {name: row["restarts"] > 0 for name, row in rows.items()} == {name: name != "calm" for name in stages}
    for name in ("signalled", "timed"):
        log = pipeline.log(name)
        assert "everything saved" in log and "cluster_jobs.slurm.after_job: stopped on request" in log
    assert "resuming" in pipeline.log("killed")
    assert "waited" in pipeline.log("hung") and "watchdog_seconds=20" in pipeline.log("hung")


def test_a_cancelled_job_is_not_requeued_and_resubmit_goes_on(
    slurm: SlurmCluster, tmp_path: Path, tiny_directory: Path
) -> None:
    stages = {
        "gan": training(tiny_directory, "gan", nodes=1, seconds=0),
        "after": toy("gan", out="${root}/after"),
        "calm": training(tiny_directory, "calm", nodes=1, seconds=0),
    }
    pipeline = Submitted(slurm, tmp_path / HOSTILE, stages, name=HOSTILE)  # which begins the jobs' names
    printed = pipeline.call("submit")
    assert "3 jobs submitted" in printed and "cluster_jobs.status" in printed
    assert "0 jobs submitted" in pipeline.call("submit")  # they are in the queue
    until(lambda: len(checkpoints(pipeline.root / "gan")) > 0, "a checkpoint")
    assert pipeline.status()["gan"]["images"].endswith("of 320")
    slurm.run(["scancel", pipeline.job("gan")])  # while it waits
    pipeline.wait("gan", "CANCELLED")
    pipeline.wait("after", "CANCELLED")
    until(lambda: not slurm.run(["squeue", "-h", "-j", pipeline.job("gan")]).stdout, "the end of the batch script")
    pipeline.wait("calm", "COMPLETED")
    assert slurm.state(pipeline.job("gan")) == "CANCELLED"
    assert not (pipeline.root / "after").exists()
    (pipeline.root / "gan" / "go").touch()
    assert "2 jobs submitted" in pipeline.call("resubmit")
    pipeline.wait("after", "COMPLETED")
    assert final_weights(pipeline.root / "gan") == final_weights(pipeline.root / "calm")
    assert "toy_stage" in pipeline.call("logs", "stage=after")
    assert not list(tmp_path.rglob("e")) and "nothing to cancel" in pipeline.call("cancel")


def test_cancel_ends_what_is_queued_and_running(slurm: SlurmCluster, tmp_path: Path) -> None:
    pipeline = Submitted(slurm, tmp_path, {"a": toy(out="${root}/a", seconds=300), "b": toy("a", out="${root}/b")})
    pipeline.call("submit")
    pipeline.wait("a", "RUNNING")
    printed = pipeline.call("cancel")
    assert "cancelled a (job" in printed and "cancelled b (job" in printed
    pipeline.wait("a", "CANCELLED")
    assert {row["state"] for row in pipeline.status().values()} == {"cancelled"}


def test_a_failed_stage_leaves_nothing_waiting_and_one_that_gets_nowhere_is_not_restarted_for_ever(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    stages = {
        "user": toy(out="${root}/user", fate="user"),
        "crash": toy(out="${root}/crash", fate="crash"),
        "killed": toy(out="${root}/killed", fate="killed"),
        "after": toy("user", out="${root}/after"),
        "later": toy("after", out="${root}/later"),
    }
    pipeline = Submitted(slurm, tmp_path, stages)
    pipeline.call("submit")
    for name, state in {"user": "FAILED", "crash": "FAILED", "killed": "FAILED", "later": "CANCELLED"}.items():
        pipeline.wait(name, state)
    assert "this is the user's mistake; not requeued" in pipeline.log("user")
    assert "attempt 2 brought it no further than 0" in pipeline.log("crash")
    assert "ended without an exit record" in pipeline.log("killed")
    rows = pipeline.status()
    assert [rows[name]["restarts"] for name in ("user", "crash", "killed")] == [0, 1, 1]
    assert rows["user"]["message"] == "this is the user's mistake"


def test_a_typo_is_refused_before_anything_is_queued_and_a_dry_run_queues_nothing(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    pipeline = Submitted(slurm, tmp_path, {"a": toy(out="${root}/a"), "b": toy("a", out="${root}/b", secnds=1)})
    assert "did you mean 'seconds'?" in pipeline.call("submit", code=2)
    pipeline = Submitted(slurm, tmp_path, {"a": toy(out="${root}/a"), "b": toy("a", out="${root}/b")})
    printed = pipeline.call("submit", "dry_run=true")
    assert "#SBATCH --nodes=1" in printed and "--dependency=afterok:JOB_OF_a" in printed
    assert not slurm.run(["squeue", "-h"]).stdout and not (pipeline.root / "slurm.json").exists()


def test_what_sbatch_refuses_is_one_line_and_leaves_no_job_behind(slurm: SlurmCluster, tmp_path: Path) -> None:
    stages = {"a": toy(out="${root}/a", seconds=300), "b": toy("a", out="${root}/b") | {"resources": {"gpus": 5}}}
    pipeline = Submitted(slurm, tmp_path, stages)
    printed = pipeline.call("submit", code=2)
    assert "stage 'b': sbatch refused" in printed and "the 1 jobs that were queued before it are cancelled" in printed
    until(lambda: not slurm.run(["squeue", "-h"]).stdout, "an empty queue")


def test_the_demo_runs_to_its_report_and_an_array_makes_the_pool_of_one_job(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    demo = yaml.safe_load((BUILT_IN / "demo.yaml").read_text())
    stages = demo.pop("stages")
    stages["pool"]["resources"] = {"array": 2}
    small = {"encoder_nimg": 640, "gan_nimg": 640, "gan_width": 4, "refiner_nimg": 640, "encoder_width": 4}
    demo["vars"] |= small | {"label_steps": 10, "score_steps": 10, "synthetic": 200, "pool": 1500}
    pipeline = Submitted(slurm, tmp_path, stages, **demo)
    pipeline.call("submit")
    pipeline.wait("report", "COMPLETED", timeout=1500)
    assert {row["state"] for row in pipeline.status().values()} == {"done"}
    assert (pipeline.root / "report.html").stat().st_size > 100_000
    run = read_json(pipeline.root / "pool" / "pool.json")["run"]
    assert generate([f"run={run}", f"out={tmp_path}/alone", "count=1500", "threads=1"]) == 0
    for name in ("000000.tar", "000001.tar", "index.bin", "labels.bin"):
        assert (pipeline.root / "pool" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_the_doctor_checks_both_nodes_of_a_real_allocation(
    slurm: SlurmCluster, tiny_directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    words = [f"data={tiny_directory}", f"shared={tmp_path / 'runs'}", f"json={tmp_path / 'found.json'}", "seconds=0.5"]
    doctor = [sys.executable, "-m", "cluster_jobs.doctor", *words, "timeout=300"]
    environment = {"MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(REPOSITORY)}  # the virtual nodes have no names in DNS
    ended = slurm.run(["salloc", "--nodes=2", f"--chdir={REPOSITORY}", *doctor], environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = [Finding(**item) for item in json.loads((tmp_path / "found.json").read_text())]
    by_subject = {item.subject: item for item in found}
    assert [item.line for item in found if item.level == "fail"] == []
    assert by_subject["slurm"].level == "ok" and by_subject["requeue"].finding == "this job can be requeued"
    assert by_subject["nodes"].finding == "all 2 answer: n1, n2"
    assert by_subject["clocks"].level == "ok"
    assert by_subject["shared directory"].finding.endswith("n1, n2 wrote and synced files that are read here")
    assert "gloo between 2 processes on n1, n2" in by_subject["all-reduce"].finding
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_shared_directory_that_no_node_can_write_fails_in_a_real_allocation(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    words = [f"shared={tmp_path / 'file'}", "seconds=0.5", "timeout=300"]
    doctor = [sys.executable, "-m", "cluster_jobs.doctor", *words]
    environment = {"MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(REPOSITORY)}
    ended = slurm.run(["salloc", "--nodes=2", f"--chdir={REPOSITORY}", *doctor], environment)
    assert ended.returncode == 2
    assert "n1 cannot write (Not a directory), n2 cannot write (Not a directory)" in ended.stdout
    assert "2 of" in ended.stderr and "checks failed: shared directory, shared directory" in ended.stderr
