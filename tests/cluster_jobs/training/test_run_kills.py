"""A run that is killed anywhere, or asked to stop, ends with the bits of one that nothing disturbed."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from cluster_jobs.training.run import load_run
from tests.cluster_jobs.tiny import write_tiny_shards
from tests.cluster_jobs.toy_runs import BATCH, HOSTILE, KEYS, TOTAL, TOY, assert_tidy, final, order, record, wait_for
from tests.processes import ROOT, Ended, Forked, fork, launch

# --- kill anything, anywhere


def test_the_means_of_a_killed_run_cover_the_steps_before_the_kill_too(
    train: Callable[..., Ended], uninterrupted: Path, tmp_path: Path
) -> None:
    """The checkpoint of 12 images lies in the middle of the steps that the line at 16 is the mean of."""
    assert train(TOY_KILL_AT_NIMG="20").code == -signal.SIGKILL
    assert train().code == 0
    means = [
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (tmp_path / "run", uninterrupted)
    ]
    assert means[0] == means[1]


@pytest.mark.parametrize("nimg", [4, 12, 20, 24, 28, 36, 40])
def test_a_run_killed_after_any_step_ends_with_the_same_bits(
    train: Callable[..., Ended], uninterrupted: Path, tmp_path: Path, nimg: int
) -> None:
    assert train(TOY_KILL_AT_NIMG=str(nimg)).code == -signal.SIGKILL
    assert record_or_none(tmp_path / "run") in (None, "running")
    resumed = train()
    assert resumed.code == 0, resumed.output
    checkpoint = (nimg - 1) // 12 * 12  # killed before the save of its own step
    assert (f"resuming {tmp_path / 'run'} at {checkpoint} images" in resumed.output) == (checkpoint > 0)
    assert final(tmp_path / "run") == final(uninterrupted)
    assert order(tmp_path / "run") == order(uninterrupted)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["nimg"] for line in lines] == [8, 16, 24, 32, 40]
    assert record(tmp_path / "run")["state"] == "done"
    assert_tidy(tmp_path / "run")


def record_or_none(run: Path) -> str | int | None:
    return record(run)["state"] if (run / "exit.json").exists() else None


def test_a_run_killed_in_every_life_still_ends_with_the_same_bits(
    train: Callable[..., Ended], uninterrupted: Path, tmp_path: Path
) -> None:
    for nimg in (16, 28, 40):
        assert train(TOY_KILL_AT_NIMG=str(nimg)).code == -signal.SIGKILL
    assert train().code == 0
    assert final(tmp_path / "run") == final(uninterrupted)


@pytest.mark.timeout(1800)  # some sixty runs
@pytest.mark.cluster
def test_a_run_killed_before_any_change_to_its_directory_ends_with_the_same_bits(
    tiny_directory: Path, tmp_path: Path
) -> None:
    """The kill falls before each opening, renaming and removing of a file, so also within every checkpoint."""
    keys = [f"data={tiny_directory}", *KEYS, "total_nimg=16", "checkpoint_nimg=8", "log_nimg=12", "keep_last=1"]
    assert fork(tmp_path / "log", TOY, *keys, f"run.dir={tmp_path / 'whole'}").code == 0
    torn_checkpoints = 0
    for count in itertools.count(1):
        run = tmp_path / f"killed at {count}"
        killed = fork(tmp_path / "log", TOY, *keys, f"run.dir={run}", env={"TOY_KILL_AT_WRITE": str(count)})
        if killed.code == 0:
            break
        assert killed.code == -signal.SIGKILL, killed.output
        resumed = fork(tmp_path / "log", TOY, *keys, f"run.dir={run}")
        assert resumed.code == 0, resumed.output
        torn_checkpoints += "trying the checkpoint before it" in resumed.output
        assert final(run, 16) == final(tmp_path / "whole", 16)
        assert_tidy(run)
    assert count > 12 and torn_checkpoints >= 2


@pytest.mark.cluster
def test_a_real_command_killed_from_outside_ends_with_the_same_bits(uninterrupted: Path, tmp_path: Path) -> None:
    """``python -m``, as a user types it, in directories with hostile names."""
    data, run = write_tiny_shards(tmp_path / f"data {HOSTILE}"), tmp_path / f"run {HOSTILE}"
    words = [f"data={data}", f"run.dir={run}", *KEYS]
    env = {**os.environ, "TOY_WAIT_AT_NIMG": "20"}
    process = subprocess.Popen([sys.executable, "-m", TOY, *words], cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    wait_for(lambda: (run / "checkpoints" / f"{12:012d}.json").exists())
    process.kill()
    assert process.wait() == -signal.SIGKILL
    resumed = launch(TOY, *words)
    assert resumed.code == 0 and "resuming" in resumed.output, resumed.output
    assert final(run) == final(uninterrupted)
    assert_tidy(run)


# --- preemption


@pytest.mark.parametrize("how", ["STOP", "SIGTERM", "SIGUSR1"])
def test_a_run_asked_to_stop_saves_exits_with_75_and_goes_on(
    tiny_directory: Path, uninterrupted: Path, tmp_path: Path, how: str
) -> None:
    run, stage = tmp_path / "run", tmp_path / "stage.json"
    words = (f"data={tiny_directory}", f"run.dir={run}", *KEYS)
    env = {"CLUSTER_JOBS_EXIT_FILE": str(stage), "TOY_WAIT_AT_NIMG": str(BATCH)}  # before it looks for a STOP
    forked = Forked(tmp_path / "log", TOY, *words, env=env)
    wait_for(lambda: (run / "order-0.txt").exists())
    if how == "STOP":
        (run / "STOP").touch()
    else:
        os.kill(cast(int, forked.process.pid), getattr(signal, how))
    (run / "go").touch()
    ended = forked.ended()
    assert ended.code == 75, ended.output
    assert record(run)["state"] == "preempted" and record(run)["code"] == 75
    assert json.loads(stage.read_text()) == record(run)
    (nimg,) = {len(order(run)) * BATCH, load_run(run)[2]}  # everything that was seen is saved
    assert 0 < nimg < TOTAL and f"stopped on request at {nimg} images" in str(record(run)["message"])
    assert not (run / "STOP").exists()
    resumed = fork(tmp_path / "log", TOY, *words)
    assert resumed.code == 0 and f"at {nimg} images" in resumed.output
    assert final(run) == final(uninterrupted)
    assert record(run)["state"] == "done"
