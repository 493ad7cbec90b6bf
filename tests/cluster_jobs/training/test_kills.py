"""Fifty SIGKILLs over one training: the weights, the files and the checkpoints do not show them."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster_jobs.training.checkpoint import CheckpointStore
from tests.processes import ROOT, Forked, fork, launch

TOY = "tests.cluster_jobs.toy_train"
TOTAL = 8_000
KEYS = ("batch=4", f"total_nimg={TOTAL}", "checkpoint_nimg=20", "log_nimg=20", "keep_best=0", "threads=1")
WHOLE_COMMANDS, KILLS = 5, 50


def half_written(run: Path) -> bool:
    """Whether the kill fell within the writing of a checkpoint."""
    files = {path.name for path in (run / "checkpoints").glob("*")}
    stems = {name.partition(".")[0] for name in files if not name.startswith(".")}
    return any(name.endswith(".tmp") for name in files) or any(
        not {f"{stem}.json", f"{stem}.safetensors"} <= files for stem in stems
    )


def kill_a_forked_process(log: Path, words: tuple[str, ...], run: Path, draw: random.Random) -> None:
    """Kills before a random change to the run's files, or at a random moment, which may lie in a write of C code."""
    if draw.random() < 0.7:
        ended = fork(log, TOY, *words, env={"TOY_KILL_AT_WRITE": str(draw.randint(1, 60))})
        assert ended.code == -signal.SIGKILL, ended.output
        return
    attempt = Forked(log, TOY, *words)
    await_checkpoints(run, draw.randint(0, 4), attempt.process.is_alive)
    time.sleep(draw.uniform(0.0, 0.05))
    assert attempt.process.pid is not None
    os.kill(attempt.process.pid, signal.SIGKILL)
    assert attempt.ended().code == -signal.SIGKILL, "it had ended before"


def kill_a_whole_command(words: tuple[str, ...], run: Path, draw: random.Random) -> None:
    """``python -m``, as a user starts it."""
    process = subprocess.Popen([sys.executable, "-m", TOY, *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    await_checkpoints(run, draw.randint(1, 4), lambda: process.poll() is None)
    time.sleep(draw.uniform(0.0, 0.05))
    process.kill()
    assert process.wait() == -signal.SIGKILL


def await_checkpoints(run: Path, count: int, alive: Callable[[], bool]) -> None:
    """Waits until the newest checkpoint has changed so many times."""
    for _ in range(count):
        before = newest(run)
        while newest(run) == before and alive():
            time.sleep(0.0005)


def newest(run: Path) -> str:
    return max((path.name for path in (run / "checkpoints").glob("[0-9]*.json")), default="")


@pytest.mark.cluster
@pytest.mark.timeout(3000)
def test_fifty_kills_at_random_moments_leave_no_trace(tiny_directory: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    whole, run = tmp_path / "whole", tmp_path / "run"
    words = (f"data={tiny_directory}", *KEYS)
    assert Forked(tmp_path / "log", TOY, *words, f"run.dir={whole}").ended(800).code == 0
    words = (*words, f"run.dir={run}")
    store = CheckpointStore(run / "checkpoints")
    reached, torn = 0, 0
    for number in range(KILLS):
        if number % (KILLS // WHOLE_COMMANDS) == 5:
            kill_a_whole_command(words, run, draw)
        else:
            kill_a_forked_process(tmp_path / "log", words, run, draw)
        torn += half_written(run)
        found = store.latest()
        now = found[1] if found else 0
        assert now >= reached, f"kill {number} lost the checkpoint of {reached} images"
        reached = now
    assert 0 < reached < TOTAL, "every kill fell on a run in work"
    assert torn >= 5
    ended = launch(TOY, *words, timeout=800)
    assert ended.code == 0 and f"resuming {run} at {reached:,} images" in ended.output, ended.output
    last = f"checkpoints/{TOTAL:012d}.safetensors"
    assert (run / last).read_bytes() == (whole / last).read_bytes()
    assert [path.name for path in run.rglob("*") if path.name.startswith(".") or path.name.endswith(".tmp")] == []
    assert not half_written(run)
    assert (run / "metrics.jsonl").read_text().count("\n") == (whole / "metrics.jsonl").read_text().count("\n")
