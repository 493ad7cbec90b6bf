"""Two processes see the samples and learn the weights of one, whoever is killed, stopped or meets damage."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch

from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Stream
from cluster_jobs.distributed.batch_split import contiguous
from cluster_jobs.training.run import load_run
from tests.cluster_jobs.tiny import write_tiny_shards
from tests.cluster_jobs.toy_runs import BATCH, HOSTILE, KEYS, TOTAL, TOY, assert_tidy, final, order, record, wait_for
from tests.processes import Ended, fork, fork_ranks, launch, start_ranks


@pytest.fixture(scope="session")
def uninterrupted_pair(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks that nothing disturbed; to be read only."""
    run = tmp_path_factory.mktemp("pair") / "run"
    for ended in fork_ranks(run.with_name("log"), TOY, f"data={tiny_directory}", f"run.dir={run}", *KEYS):
        assert ended.code == 0, ended.output
        assert "Warning" not in ended.output
    return run


def test_two_processes_see_the_sample_order_of_one(uninterrupted: Path, uninterrupted_pair: Path) -> None:
    first, second = order(uninterrupted_pair, 0), order(uninterrupted_pair, 1)
    assert {position: first[position] + second[position] for position in first} == order(uninterrupted)


def test_two_processes_learn_what_one_learns(uninterrupted: Path, uninterrupted_pair: Path) -> None:
    """Up to the order of sums: the mean of two halves' gradients is the gradient of the whole batch."""
    one, two = load_run(uninterrupted)[1], load_run(uninterrupted_pair)[1]
    torch.testing.assert_close(two["model"]["weight"], one["model"]["weight"], rtol=1e-4, atol=1e-6)
    losses = [
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (uninterrupted, uninterrupted_pair)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)  # metrics are means over the ranks


@pytest.mark.slow
def test_means_go_on_when_the_number_of_processes_changes_within_a_line(
    train: Callable[..., Ended], uninterrupted: Path, tiny_directory: Path, tmp_path: Path
) -> None:
    words = (f"data={tiny_directory}", f"run.dir={tmp_path / 'run'}", *KEYS)
    for ended in fork_ranks(tmp_path / "ranks", TOY, *words, "total_nimg=12"):
        assert ended.code == 0, ended.output
    assert train().code == 0
    mine, theirs = (
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (tmp_path / "run", uninterrupted)
    )
    assert mine == pytest.approx(theirs, rel=1e-5)


@pytest.mark.cluster
def test_a_rank_killed_under_accelerate_launch_leaves_the_same_bits_in_the_end(
    uninterrupted_pair: Path, tmp_path: Path
) -> None:
    data, run = write_tiny_shards(tmp_path / f"data {HOSTILE}"), tmp_path / f"run {HOSTILE}"
    words = (f"data={data}", f"run.dir={run}", *KEYS)
    killed = launch(TOY, *words, processes=2, env={"TOY_KILL_AT_NIMG": "20", "TOY_KILL_RANK": "1"})
    assert killed.code == 1 and not (run / "checkpoints" / f"{TOTAL:012d}.json").exists(), killed.output
    resumed = launch(TOY, *words, processes=2)
    assert resumed.code == 0 and resumed.output.count("resuming") == 1, resumed.output
    assert "Warning" not in resumed.output
    assert final(run) == final(uninterrupted_pair)
    assert [order(run, rank) for rank in (0, 1)] == [order(uninterrupted_pair, rank) for rank in (0, 1)]
    assert record(run)["state"] == "done"
    assert_tidy(run)


def test_two_ranks_stop_at_the_same_step_when_one_is_asked(
    tiny_directory: Path, uninterrupted_pair: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = (f"data={tiny_directory}", f"run.dir={run}", *KEYS)
    ranks = start_ranks(tmp_path / "log", TOY, *words, env={"TOY_WAIT_AT_NIMG": "8"})
    wait_for(lambda: (run / "order-1.txt").exists())
    os.kill(cast(int, ranks[1].process.pid), signal.SIGUSR1)
    (run / "go").touch()
    for ended in [rank.ended() for rank in ranks]:
        assert ended.code == 75, ended.output
    assert list(order(run, 0)) == list(order(run, 1))
    assert 0 < load_run(run)[2] == BATCH * len(order(run)) < TOTAL
    assert all(ended.code == 0 for ended in fork_ranks(tmp_path / "log", TOY, *words))
    assert final(run) == final(uninterrupted_pair)


def test_the_record_names_the_damaged_sample_that_one_rank_met(tiny_directory: Path, tmp_path: Path) -> None:
    shards = Shards(shutil.copytree(tiny_directory, tmp_path / "data"))
    index = int(Stream(shards, seed=0, batch=BATCH, mine=contiguous(BATCH, 1, 2)).indices(8)[0])
    member = shards._members[index]
    path = Path(shards.directory) / shards.shard_names[member["shard"]]
    content = bytearray(path.read_bytes())
    content[int(member["image_offset"])] ^= 0xFF
    path.write_bytes(content)
    run = tmp_path / "run"
    ended = fork_ranks(tmp_path / "log", TOY, f"data={shards.directory}", f"run.dir={run}", *KEYS)
    assert ended[1].code == 2 and ended[0].code != 0
    assert f"error: {shards.directory}: sample {shards.key(index)} is no readable image" in ended[1].output
    assert record(run)["code"] == 2 and shards.key(index) in str(record(run)["message"])
    replaced = fork(tmp_path / "log", TOY, f"data={shards.directory}", f"run.dir={run} new", *KEYS, "damaged=replace")
    assert replaced.code == 0 and shards.key(index) in replaced.output
