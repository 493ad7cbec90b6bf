"""A rank that hangs ends the run, says where it stood, and the same command finishes as if nothing had happened."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster_jobs.training.checkpoint import CheckpointStore
from cluster_jobs.training.watchdog import GRACE
from tests.processes import ROOT, Forked, fork, fork_ranks, launch

TOY = "tests.cluster_jobs.toy_train"
KEYS = ("batch=4", "total_nimg=80", "checkpoint_nimg=12", "log_nimg=8", "keep_best=0", "threads=1")
LAST = "checkpoints/000000000080.safetensors"


def words(data: Path, run: Path, *more: str) -> list[str]:
    return [f"data={data}", f"run.dir={run}", *KEYS, *more]


def record(run: Path) -> dict:
    return json.loads((run / "exit.json").read_text())


@pytest.mark.cluster
@pytest.mark.parametrize("hanging", [0, 1])
def test_of_two_ranks_one_hangs_and_both_end_with_their_stacks_in_the_log(
    tiny_directory: Path, tmp_path: Path, hanging: int
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert [end.code for end in fork_ranks(tmp_path / "log", TOY, *words(tiny_directory, whole))] == [0, 0]
    # it loses its connection while it waits for the other rank to say where it stands
    env = {"TOY_HANG_AT_NIMG": "20", "TOY_HANG_SECONDS": "6", "TOY_KILL_RANK": str(hanging)}
    ends = fork_ranks(tmp_path / "hung", TOY, *words(tiny_directory, run, "watchdog_seconds=3"), env=env)
    assert [end.code for end in ends] == [70, 70]
    for rank, end in enumerate(ends):
        (line,) = [line for line in end.output.splitlines() if line.startswith("error: ")]
        assert re.match(rf"error: rank {rank} of 2 waited \d+ s for a step to end, at 20 images, in ", line)
        assert "most recent call first" in end.output and "toy_train.py" in end.output
    assert f"in hang ({Path(__file__).parents[1] / 'toy_train.py'}:" in ends[hanging].output
    assert "in hang" not in ends[1 - hanging].output
    assert record(run)["state"] == "failed" and record(run)["code"] == 70
    assert "at 20 images" in record(run)["message"]
    resumed = fork_ranks(tmp_path / "again", TOY, *words(tiny_directory, run, "watchdog_seconds=60"))
    assert [end.code for end in resumed] == [0, 0], resumed[0].output
    assert "at 12 images" in resumed[0].output
    assert (run / LAST).read_bytes() == (whole / LAST).read_bytes()


@pytest.mark.cluster
def test_the_launcher_takes_down_what_a_hanging_rank_leaves(tiny_directory: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    env = {"TOY_HANG_AT_NIMG": "40", "TOY_KILL_RANK": "1"}
    ended = launch(TOY, *words(tiny_directory, run, "watchdog_seconds=10"), processes=2, env=env)
    assert ended.code == 1 and record(run)["code"] == 70
    for rank in (0, 1):
        assert re.search(rf"error: rank {rank} of 2 waited 1\d s for a step to end, at 40 images", ended.output)
    store = CheckpointStore(run / "checkpoints")
    found = store.latest()
    assert found is not None and found[1] == 36


def test_a_run_of_one_process_that_hangs_ends_too(tiny_directory: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    env = {"TOY_HANG_AT_NIMG": "40"}
    ended = fork(tmp_path / "log", TOY, *words(tiny_directory, run, "watchdog_seconds=1"), env=env)
    assert ended.code == 70 and re.search(r"error: rank 0 of 1 waited \d s ", ended.output)


@pytest.mark.slow
def test_no_watchdog_watches_where_none_is_wanted(tiny_directory: Path, tmp_path: Path) -> None:
    env = {"TOY_HANG_AT_NIMG": "40"}
    forked = Forked(tmp_path / "log", TOY, *words(tiny_directory, tmp_path / "run", "watchdog_seconds=0"), env=env)
    forked.process.join(6)
    assert forked.process.is_alive()
    forked.process.kill()
    assert forked.ended().code < 0 and "error" not in forked.log.read_text()


def python(
    tmp_path: Path, *lines: str, seconds: float = 0.5, steps: int = 5, ranks: int = 1
) -> subprocess.CompletedProcess[str]:
    """Runs a script that has a watchdog called ``dog``, over ``seconds`` and behind ``steps`` steps."""
    head = ("import ctypes, time", "from cluster_jobs.training.watchdog import Watchdog")
    begun = (f"dog = Watchdog({seconds}, 'rank 0 of {ranks}')", f"for step in range({steps}): dog.step(step)")
    (tmp_path / "script.py").write_text("\n".join((*head, *begun, *lines)))
    env = {**os.environ, "WORLD_SIZE": str(ranks)}
    return subprocess.run([sys.executable, tmp_path / "script.py"], cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_slow_first_steps_are_no_hang(tmp_path: Path) -> None:
    """Steps of 1.5 s under a limit of one second: the first four are allowed, the fifth is not."""
    ended = python(tmp_path, "for step in range(1, 9): time.sleep(1.5); dog.step(4 * step)", seconds=1, steps=0)
    assert ended.returncode == 70 and "at 16 images" in ended.stderr


@pytest.mark.slow
def test_a_long_phase_that_gives_signs_of_life_is_no_hang_and_a_stopped_watchdog_bites_nobody(tmp_path: Path) -> None:
    lines = "for part in range(12): time.sleep(0.25); dog.alive()", "dog.stop(); time.sleep(4)"
    ended = python(tmp_path, *lines, seconds=2)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert python(tmp_path, "time.sleep(60)").returncode == 70


@pytest.mark.slow
def test_a_hanging_rank_gives_the_others_time_to_say_where_they_stand(tmp_path: Path) -> None:
    begin = time.monotonic()
    ended = python(tmp_path, "time.sleep(60)", ranks=2)
    assert ended.returncode == 70 and time.monotonic() - begin > GRACE


def test_a_stuck_extension_that_holds_the_interpreter_is_ended_too(tmp_path: Path) -> None:
    """A sleep in C under the interpreter's lock: no Python thread runs, so the timer in C has to end it."""
    ended = python(tmp_path, "ctypes.PyDLL(None).sleep(60)")  # unlike CDLL, PyDLL keeps the lock
    assert ended.returncode == 1 and "Timeout" in ended.stderr and "script.py" in ended.stderr
