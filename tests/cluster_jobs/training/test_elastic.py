"""A run goes on with another number of processes, and with another batch where that is asked for."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Stream
from cluster_jobs.training.run import load_run
from tests.processes import Ended, fork, fork_ranks, launch

TOY = "tests.cluster_jobs.toy_train"
BATCH, TOTAL = 4, 120
KEYS = (f"batch={BATCH}", f"total_nimg={TOTAL}", "checkpoint_nimg=12", "log_nimg=8", "keep_best=0", "threads=1")


def take_order(run: Path) -> dict[int, list[int]]:
    """What a attempt saw at each position, the ranks' parts joined in rank order; takes the notes away."""
    notes = sorted(run.glob("order-*.txt"))
    parts = [[list(map(int, line.split())) for line in path.read_text().splitlines()] for path in notes]
    for path in notes:
        path.unlink()
    return {lines[0][0]: [index for line in lines for index in line[1:]] for lines in zip(*parts, strict=False)}


def sequence(attempts: Iterable[dict[int, list[int]]]) -> list[int]:
    """The samples in stream order; a position that two attempts saw must have shown the same samples."""
    seen: dict[int, list[int]] = {}
    for attempt in attempts:
        for position, indices in attempt.items():
            assert seen.setdefault(position, indices) == indices
    assert sorted(seen) == list(range(0, TOTAL, BATCH))
    return [index for position in sorted(seen) for index in seen[position]]


def one(log: Path, *words: str, env: dict[str, str]) -> list[Ended]:
    return [fork(log, TOY, *words, env=env)]


def two(log: Path, *words: str, env: dict[str, str]) -> list[Ended]:
    return fork_ranks(log, TOY, *words, env=env)


@pytest.mark.cluster
@pytest.mark.parametrize("window", ["1", "64", "all"])
def test_one_process_then_two_then_one_see_the_sample_keys_of_a_run_nobody_disturbed(
    tiny_directory: Path, tmp_path: Path, window: str
) -> None:
    """Killed at the end of the first two attempts, in shards of 7, 3 and 11 samples, over almost six epochs."""
    words = (f"data={tiny_directory}", *KEYS, f"window={window}")
    assert one(tmp_path / "log", *words, f"run.dir={tmp_path / 'whole'}", env={})[0].code == 0
    run, attempts = tmp_path / "run", []
    for start, kill_at in ((one, "40"), (two, "88"), (one, "")):
        env = {"TOY_KILL_AT_NIMG": kill_at} if kill_at else {}
        ends = start(tmp_path / "log", *words, f"run.dir={run}", env=env)
        assert (ends[0].code == 0) == (not kill_at), ends[0].output
        attempts.append(take_order(run))
    assert [min(attempt) for attempt in attempts] == [0, 36, 84]  # each went on from the last checkpoint
    shards = Shards(tiny_directory)
    keys = [shards.key(index) for index in sequence(attempts)]
    assert keys == [shards.key(index) for index in sequence([take_order(tmp_path / "whole")])]
    assert keys == [
        shards.key(int(i)) for i in Stream(shards, seed=0, batch=1, window=window).order.indices(np.arange(TOTAL))
    ]
    mine, whole = (load_run(directory)[1]["model"]["weight"] for directory in (run, tmp_path / "whole"))
    torch.testing.assert_close(mine, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.cluster
def test_processes_may_change_under_the_launcher(tiny_directory: Path, tmp_path: Path) -> None:
    """The whole commands: alone, with ``accelerate launch`` over two processes, and alone again."""
    run, attempts = tmp_path / "run", []
    for processes, total in ((1, 40), (2, 80), (1, TOTAL)):
        words = (f"data={tiny_directory}", *KEYS, f"total_nimg={total}", f"run.dir={run}")
        ended = launch(TOY, *words, processes=processes)
        assert ended.code == 0, ended.output
        attempts.append(take_order(run))
    assert [min(attempt) for attempt in attempts] == [0, 40, 80]
    order = Stream(Shards(tiny_directory), seed=0, batch=BATCH).order
    assert sequence(attempts) == order.indices(np.arange(TOTAL)).tolist()


@pytest.fixture
def train(tiny_directory: Path, tmp_path: Path) -> Callable[..., Ended]:
    def call(*words: str) -> Ended:
        return fork(tmp_path / "log", TOY, f"data={tiny_directory}", f"run.dir={tmp_path / 'run'}", *KEYS, *words)

    return call


def test_another_batch_is_refused_with_the_key_that_allows_it(train: Callable[..., Ended], tmp_path: Path) -> None:
    assert train("total_nimg=40").code == 0
    ended = train("batch=6")
    assert ended.code == 2 and ended.output == (
        f"{TOY}: error: {tmp_path / 'run'} was started with another configuration "
        "(batch: 4 -> 6 (rebatch=true allows it)); choose a new run.dir\n"
    )
    other = train("batch=6", "rebatch=true", "rate=0.5")
    assert other.code == 2 and "(rate: 0.001 -> 0.5)" in other.output


def test_another_batch_goes_on_at_the_same_image_position(
    train: Callable[..., Ended], tiny_directory: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert train("total_nimg=40").code == 0
    before = take_order(run)
    ended = train("batch=6", "rebatch=true")
    assert ended.code == 0 and "batch=6 instead of 4 from here on" in ended.output
    after = take_order(run)
    assert list(before) == list(range(0, 40, 4)) and list(after) == list(range(40, TOTAL, 6))
    seen = [index for attempt in (before, after) for indices in attempt.values() for index in indices]
    order = Stream(Shards(tiny_directory), seed=0, batch=1).order
    assert seen == order.indices(np.arange(len(seen))).tolist() and len(seen) == 124
    assert yaml.safe_load((run / "config.yaml").read_text())["batch"] == 6
    assert train("batch=6", "total_nimg=150").code == 0  # the new batch is frozen now
    assert "batch: 6 -> 4" in train("total_nimg=150").output


def test_a_batch_that_does_not_divide_over_the_new_processes_is_refused(
    train: Callable[..., Ended], tiny_directory: Path, tmp_path: Path
) -> None:
    assert train("batch=5", "total_nimg=40").code == 0
    shutil.copytree(tmp_path / "run", tmp_path / "before")
    words = (f"data={tiny_directory}", *KEYS, "batch=5", f"run.dir={tmp_path / 'run'}")
    ends = two(tmp_path / "ranks", *words, env={})
    assert [end.code for end in ends] == [2, 2] and "batch=5 does not divide over 2 processes" in ends[0].output
    assert load_run(tmp_path / "run")[2] == load_run(tmp_path / "before")[2] == 40
