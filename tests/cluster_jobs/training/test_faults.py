"""What a cluster does to a run: full and read-only disks, a second run, a shard gone, strange settings, dead launchers.

Each gives one clear line and loses nothing: the same command ends with the bits of a run that nobody disturbed.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, STDOUT

import numpy as np
import pytest
import yaml

from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Order
from cluster_jobs.pipelines.launch import executable_words, launch_words
from cluster_jobs.pipelines.pipeline import Stage
from cluster_jobs.training.checkpoint import CheckpointStore
from tests.cluster_jobs.tiny import files_below
from tests.processes import HANG_SECONDS, ROOT, Ended, Forked, fork, fork_ranks, launch, start_ranks

pytestmark = pytest.mark.cluster
TOY = "tests.cluster_jobs.toy_train"
TOTAL = 80
KEYS = ("batch=4", f"total_nimg={TOTAL}", "checkpoint_nimg=12", "log_nimg=8", "keep_best=0", "threads=1")


def final(run: Path, nimg: int = TOTAL) -> bytes:
    return (run / "checkpoints" / f"{nimg:012d}.safetensors").read_bytes()


def saved(run: Path) -> int:
    """Images seen by the newest valid checkpoint; every file of the directory belongs to a valid one."""
    store = CheckpointStore(run / "checkpoints")
    found = store.latest()
    return found[1] if found else 0


def record(run: Path) -> dict:
    return json.loads((run / "exit.json").read_text())


def wait_for(condition: Callable[[], object], seconds: float = HANG_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def errors(output: str) -> list[str]:
    """The lines that tell a user of trouble."""
    return [line for line in output.splitlines() if "images/s" not in line and not line.startswith("resuming")]


@pytest.fixture(scope="module")
def whole(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert fork(run.with_name("log"), TOY, f"data={tiny_directory}", f"run.dir={run}", *KEYS).code == 0
    return run


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a file system on a new directory: ``mount("-t", "tmpfs", …)``; skips where that is not allowed."""
    mounted: list[Path] = []

    def call(*options: str, source: str = "none") -> Path:
        target = tmp_path / f"mount {len(mounted)}"
        target.mkdir()
        done = subprocess.run(["mount", *options, source, target], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
        mounted.append(target)
        return target

    yield call
    for target in mounted:
        subprocess.run(["umount", "--lazy", target], check=True)


# --- disks


@pytest.mark.parametrize(("log_nimg", "what"), [(8, ""), (1000, "the checkpoint ")])
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room_again(
    tiny_directory: Path, tmp_path: Path, whole: Path, mount: Callable[..., Path], log_nimg: int, what: str
) -> None:
    """A real file system of one megabyte, which something else fills while the run is in its middle."""
    disk = mount("-t", "tmpfs", "-o", "size=1m")
    run = disk / "run"
    words = (f"data={tiny_directory}", f"run.dir={run}", *KEYS, f"log_nimg={log_nimg}")
    forked = Forked(tmp_path / "log", TOY, *words, env={"TOY_WAIT_AT_NIMG": "28"})
    wait_for(lambda: (run / "checkpoints" / f"{24:012d}.json").exists())
    with pytest.raises(OSError, match="No space left"), open(disk / "something else", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    (run / "go").touch()
    ended = forked.ended()
    assert ended.code == 2
    (line,) = errors(ended.output)
    assert line.startswith(f"{TOY}: error: cannot write {what}") and str(disk) in line and "No space left" in line
    assert saved(run) >= 24
    (disk / "something else").unlink()
    resumed = fork(tmp_path / "log", TOY, *words)
    assert resumed.code == 0 and errors(resumed.output) == [] and "resuming" in resumed.output
    assert final(run) == final(whole)


def test_two_ranks_both_end_when_the_main_one_cannot_save(
    tiny_directory: Path, tmp_path: Path, mount: Callable[..., Path]
) -> None:
    disk = mount("-t", "tmpfs", "-o", "size=1m")
    words = (f"data={tiny_directory}", f"run.dir={disk / 'run'}", *KEYS, "log_nimg=1000")
    ranks = start_ranks(tmp_path / "log", TOY, *words, env={"TOY_WAIT_AT_NIMG": "16"})
    wait_for(lambda: (disk / "run" / "checkpoints" / f"{12:012d}.json").exists())
    with pytest.raises(OSError, match="No space left"), open(disk / "something else", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    (disk / "run" / "go").touch()
    ends = [rank.ended() for rank in ranks]
    assert [end.code for end in ends] == [2, 2]
    assert "cannot write" in ends[0].output and errors(ends[1].output) == []
    assert saved(disk / "run") >= 12


def test_a_read_only_run_directory_is_one_line(
    tiny_directory: Path, tmp_path: Path, whole: Path, mount: Callable[..., Path]
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    before = files_below(run)
    target = mount("--bind", source=str(run))
    subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)
    ended = fork(tmp_path / "log", TOY, f"data={tiny_directory}", f"run.dir={target}", *KEYS)
    expected = f"{TOY}: error: run.dir={str(target)!r}: cannot write in it (Read-only file system)\n"
    assert (ended.code, ended.output) == (2, expected)
    ended = fork(tmp_path / "log", TOY, f"data={tiny_directory}", f"run.dir={target / 'new'}", *KEYS)
    expected = f"{TOY}: error: run.dir={str(target / 'new')!r}: cannot create it (Read-only file system)\n"
    assert (ended.code, ended.output) == (2, expected)
    assert files_below(run) == before


# --- two runs in one directory


@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_live_run_in_a_directory_is_refused_and_the_first_does_not_notice(
    tiny_directory: Path, tmp_path: Path, whole: Path, processes: int
) -> None:
    run = tmp_path / "run"
    words = (f"data={tiny_directory}", f"run.dir={run}", *KEYS)
    assert fork(tmp_path / "log", TOY, *words, env={"TOY_KILL_AT_NIMG": "16"}).code == -signal.SIGKILL
    notes = (run / "order-0.txt").stat().st_size
    first = Forked(tmp_path / "log", TOY, *words, env={"TOY_WAIT_AT_NIMG": "20"})
    wait_for(lambda: (run / "order-0.txt").stat().st_size > notes)
    before = (run / "exit.json").read_bytes(), (run / "config.yaml").read_bytes()
    start = fork if processes == 1 else fork_ranks
    ended = start(tmp_path / "second", TOY, *words, "log_nimg=4")
    ends = ended if isinstance(ended, list) else [ended]
    assert [end.code for end in ends] == [2] * processes
    assert "".join(end.output for end in ends) == (
        f"{TOY}: error: run.dir={str(run)!r} is in use by process {first.process.pid} on {socket.gethostname()}\n"
    )
    assert first.process.is_alive() and record(run)["state"] == "running"
    assert ((run / "exit.json").read_bytes(), (run / "config.yaml").read_bytes()) == before
    wrong = fork(tmp_path / "second", TOY, *words, "rate=7")
    assert wrong.code == 2 and record(run)["state"] == "running"
    (run / "go").touch()
    assert first.ended().code == 0 and record(run)["state"] == "done"
    assert final(run) == final(whole)


# --- shards


def test_a_shard_that_vanishes_in_mid_run_is_named_and_the_run_goes_on_when_it_is_back(
    tiny_directory: Path, tmp_path: Path
) -> None:
    """With ``window=1`` shard after shard is read; the last one of the first epoch vanishes before it is opened."""
    data, run = Path(shutil.copytree(tiny_directory, tmp_path / "data")), tmp_path / "run"
    shards = Shards(data)
    order = Order(shards.shard_counts, shards.shard_bytes, seed=0, window="1").indices(np.arange(len(shards)))
    vanishing = data / shards.shard_names[shards._members[int(order[-1])]["shard"]]
    keys = (*KEYS, "window=1", "batch=1", "total_nimg=30", "checkpoint_nimg=3")
    assert fork(tmp_path / "log", TOY, f"data={tiny_directory}", f"run.dir={tmp_path / 'whole'}", *keys).code == 0
    words = (f"data={data}", f"run.dir={run}", *keys)
    forked = Forked(tmp_path / "log", TOY, *words, env={"TOY_WAIT_AT_NIMG": "1"})
    wait_for(lambda: (run / "order-0.txt").exists())  # after the start has looked at every shard
    vanishing.rename(tmp_path / "gone.tar")
    (run / "go").touch()
    ended = forked.ended()
    assert ended.code == 2
    (line,) = errors(ended.output)
    assert f"{TOY}: error: " in line and vanishing.name in line
    assert vanishing.name in record(run)["message"] and saved(run) > 0
    again = fork(tmp_path / "log", TOY, *words)
    assert again.code == 2 and len(errors(again.output)) == 1 and f"{vanishing}: " in again.output
    (tmp_path / "gone.tar").rename(vanishing)
    resumed = fork(tmp_path / "log", TOY, *words)
    assert resumed.code == 0 and "resuming" in resumed.output
    assert final(run, 30) == final(tmp_path / "whole", 30)


# --- accelerate's configuration in the home directory


@pytest.fixture(scope="module")
def pair(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing disturbed."""
    run = tmp_path_factory.mktemp("pair") / "run"
    for ended in fork_ranks(run.with_name("log"), TOY, f"data={tiny_directory}", f"run.dir={run}", *KEYS):
        assert ended.code == 0, ended.output
    return run


def home(directory: Path, **settings: object) -> dict[str, str]:
    """Variables of a home directory with such a default_config.yaml."""
    path = directory / ".cache" / "huggingface" / "accelerate" / "default_config.yaml"
    path.parent.mkdir(parents=True)
    usual = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU", "num_machines": 1}
    path.write_text(yaml.safe_dump({**usual, "machine_rank": 0, "use_cpu": False, **settings}))
    return {"HOME": str(directory), "HF_HOME": str(directory / ".cache" / "huggingface")}


def run_words(words: Sequence[str], env: Mapping[str, str]) -> Ended:
    """Runs the words of a launch line to their end."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **env}
    ended = subprocess.run(executable_words(words), cwd=ROOT, env=variables, text=True, stdout=PIPE, stderr=STDOUT)
    return Ended(ended.returncode, ended.stdout)


HOSTILE = {
    "num_processes": 3,
    "num_machines": 2,
    "machine_rank": 1,
    "main_process_ip": "192.0.2.1",
    "main_process_port": 1,
    "gpu_ids": "0",
    "mixed_precision": "bf16",
    "dynamo_config": {"dynamo_backend": "INDUCTOR"},
}


def test_the_launch_lines_of_pipelines_win_over_a_stray_default_config(
    tiny_directory: Path, tmp_path: Path, pair: Path
) -> None:
    """It asks for three processes on two machines, bf16 and compilation."""
    words = (f"data={tiny_directory}", f"run.dir={tmp_path / 'run'}", *KEYS)
    ended = run_words(launch_words(Stage("toy", TOY, words, (), 2, 1)), home(tmp_path, **HOSTILE))
    assert ended.code == 0 and "warning: accelerate" not in ended.output, ended.output
    assert final(tmp_path / "run") == final(pair)


def test_a_plain_launch_takes_the_processes_of_a_default_config_but_not_its_precision(
    tiny_directory: Path, tmp_path: Path, pair: Path
) -> None:
    settings = {"num_processes": 2, "mixed_precision": "bf16", "dynamo_config": {"dynamo_backend": "INDUCTOR"}}
    words = (f"data={tiny_directory}", f"run.dir={tmp_path / 'run'}", *KEYS)
    ended = run_words(["accelerate", "launch", "-m", TOY, *words], home(tmp_path, **settings))
    assert ended.code == 0, ended.output
    for line in ("bf16 (mixed_precision), but precision=no decides", "inductor (dynamo_backend), but the key compile"):
        assert ended.output.count(f"warning: accelerate is configured for {line}") == 1
    assert final(tmp_path / "run") == final(pair)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["precision"] == "no"


def test_a_default_config_that_shards_models_is_refused(tiny_directory: Path, tmp_path: Path) -> None:
    settings = {"distributed_type": "FSDP", "num_processes": 2, "fsdp_config": {"fsdp_version": 1}}
    words = (f"data={tiny_directory}", f"run.dir={tmp_path / 'run'}", *KEYS)
    ended = run_words(["accelerate", "launch", "-m", TOY, *words], home(tmp_path, **settings))
    assert ended.code == 1
    assert ended.output.count(f"{TOY}: error: accelerate is configured for FSDP, expected plain data parallel") == 1
    assert not (tmp_path / "run").exists()


# --- launchers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_of_two_processes_tears_nothing(
    tiny_directory: Path, tmp_path: Path, pair: Path, number: signal.Signals
) -> None:
    """The launcher passes SIGTERM on to its ranks and dies; what they do until then must not matter."""
    run = tmp_path / "run"
    words = (f"data={tiny_directory}", f"run.dir={run}", *KEYS, "step_seconds=0.2")  # the signal takes a moment
    line = executable_words(launch_words(Stage("toy", TOY, words, (), 2, 1)))
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "TOY_WAIT_AT_NIMG": "16"}
    with open(tmp_path / "log", "w") as log:
        launcher = subprocess.Popen(line, cwd=ROOT, env=variables, stdout=log, stderr=log)
        wait_for(lambda: (run / "checkpoints" / f"{12:012d}.json").exists())
        launcher.send_signal(number)
        (run / "go").touch()
        assert launcher.wait(HANG_SECONDS) != 0
    reached = saved(run)
    assert 12 <= reached < TOTAL
    resumed = launch(TOY, *words, processes=2)
    assert resumed.code == 0 and f"resuming {run} at {reached} images" in resumed.output, resumed.output
    assert final(run) == final(pair)
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]
