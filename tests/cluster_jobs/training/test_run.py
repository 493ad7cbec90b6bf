"""What a run leaves, takes up again, and refuses."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
import yaml

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Stream
from cluster_jobs.training.run import Run, load_run
from tests.cluster_jobs.tiny import files_below, write_tiny_shards
from tests.cluster_jobs.toy_runs import BATCH, TOTAL, TOY, assert_tidy, final, order, record
from tests.processes import Ended, fork_ranks


@pytest.fixture
def copied(uninterrupted: Path, tmp_path: Path) -> Path:
    """The undisturbed run, to be damaged or continued."""
    return Path(shutil.copytree(uninterrupted, tmp_path / "run"))


# --- a run leaves what the formats say


def test_a_run_directory_holds_configuration_metrics_checkpoints_and_events(uninterrupted: Path) -> None:
    names = {path.name for path in uninterrupted.iterdir()}
    told = {"config.yaml", "exit.json", "lock", "metrics.jsonl", "progress.json", "tensorboard"}
    assert names == {"checkpoints", "order-0.txt"} | told
    config = yaml.safe_load((uninterrupted / "config.yaml").read_text())
    assert (config["batch"], config["total_nimg"], config["precision"], config["threads"]) == (BATCH, TOTAL, "no", 1)
    assert sorted(path.name for path in (uninterrupted / "checkpoints").iterdir()) == [
        f"{nimg:012d}.{kind}" for nimg in (36, 40) for kind in ("json", "safetensors")
    ]
    assert record(uninterrupted)["state"] == "done" and record(uninterrupted)["code"] == 0
    assert_tidy(uninterrupted)


def test_metrics_are_means_over_the_steps_since_the_last_line(uninterrupted: Path) -> None:
    lines = [json.loads(line) for line in (uninterrupted / "metrics.jsonl").read_text().splitlines()]
    assert [line["nimg"] for line in lines] == [8, 16, 24, 32, 40]
    assert all(line["speed/images_per_second"] > 0 and 0 <= line["speed/data_wait"] <= 1 for line in lines)
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_the_run_sees_the_stream_in_order_and_each_epoch_once(uninterrupted: Path, tiny: Shards) -> None:
    seen = order(uninterrupted)
    assert list(seen) == list(range(0, TOTAL, BATCH))
    positions = list(itertools.chain.from_iterable(seen.values()))
    assert sorted(positions[:21]) == list(range(21))
    assert positions == Stream(tiny, seed=0, batch=BATCH).order.indices(np.arange(TOTAL)).tolist()


def test_a_cadence_is_due_when_a_step_crosses_it() -> None:
    run = cast(Run, SimpleNamespace(config=SimpleNamespace(batch=6)))
    assert [nimg for nimg in range(6, 43, 6) if Run.due(run, 10, nimg)] == [12, 24, 30, 42]
    assert [nimg for nimg in range(6, 31, 6) if Run.due(run, 3, nimg)] == [6, 12, 18, 24, 30]


# --- a torn checkpoint


@pytest.mark.parametrize("how", ["truncated", "flipped bit", "no manifest", "torn manifest"])
def test_a_torn_checkpoint_is_reported_and_the_run_goes_on_from_the_one_before(
    train: Callable[..., Ended], uninterrupted: Path, copied: Path, how: str
) -> None:
    newest = copied / "checkpoints" / f"{TOTAL:012d}.safetensors"
    damaged = newest.with_suffix(".json") if "manifest" in how else newest
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 4
    damaged.write_bytes(content if how == "flipped bit" else content[: len(content) // 2])
    if how == "no manifest":
        damaged.unlink()
    ended = train()
    assert ended.code == 0, ended.output
    assert f"warning: {newest.with_suffix('')}" in ended.output
    assert f"resuming {copied} at 36 images" in ended.output
    assert final(copied) == final(uninterrupted)
    assert_tidy(copied)


# --- the same command, another configuration


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (["rate=0.5"], "rate: 0.001 -> 0.5"),
        (["seed=1", "batch=2"], "batch: 4 -> 2 (rebatch=true allows it); seed: 0 -> 1"),
        (["total_nimg=36"], "total_nimg: 40 -> 36 (it may only grow)"),
        (["precision=bf16"], "precision: 'no' -> 'bf16'"),
        (["threads=2"], "threads: 1 -> 2"),
    ],
)
def test_a_changed_configuration_is_refused_with_the_difference(
    train: Callable[..., Ended], copied: Path, words: list[str], difference: str
) -> None:
    before = files_below(copied)
    ended = train(*words)
    assert ended.code == 2
    assert ended.output == (
        f"{TOY}: error: {copied} was started with another configuration ({difference}); choose a new run.dir\n"
    )
    after = files_below(copied)
    assert json.loads(after.pop("exit.json"))["state"] == "failed"
    assert before.pop("exit.json") and after == before


def test_a_run_may_grow_move_and_change_its_cadences(
    train: Callable[..., Ended], copied: Path, tiny_directory: Path, tmp_path: Path
) -> None:
    moved = copied.rename(tmp_path / "moved")
    changes = ("checkpoint_nimg=5", "log_nimg=3", "sample_nimg=7", "eval_nimg=9", "keep_last=1", "workers=1")
    ended = train(f"run.dir={moved}", "total_nimg=60", *changes)
    assert ended.code == 0 and f"resuming {moved} at 40 images" in ended.output
    assert train("total_nimg=60").code == 0  # in one go
    assert final(moved, 60) == final(tmp_path / "run", 60)
    assert yaml.safe_load((moved / "config.yaml").read_text())["total_nimg"] == 60


def test_a_finished_run_started_again_changes_nothing(
    train: Callable[..., Ended], uninterrupted: Path, copied: Path
) -> None:
    of_this_process = ("exit.json", "lock")
    before = {name: content for name, content in files_below(copied).items() if name not in of_this_process}
    assert train().code == 0
    assert {name: content for name, content in files_below(copied).items() if name not in of_this_process} == before | {
        "config.yaml": before["config.yaml"].replace(str(uninterrupted).encode(), str(copied).encode())
    }


def test_threads_are_frozen_with_the_run(train: Callable[..., Ended], tmp_path: Path) -> None:
    assert train("threads=0", "total_nimg=4", OMP_NUM_THREADS="2").code == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["threads"] == 2
    assert train("threads=0", "total_nimg=8", OMP_NUM_THREADS="1").code == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["threads"] == 2


# --- what a user can get wrong


def test_validate_checks_the_inputs_and_touches_nothing(
    train: Callable[..., Ended], copied: Path, tmp_path: Path
) -> None:
    before = files_below(tmp_path)
    for words in (["rate=0.5"], [f"run.dir={tmp_path / 'other'}"], ["batch=0"]):
        ended = train(*words, "validate=true", CLUSTER_JOBS_EXIT_FILE=str(tmp_path / "stage.json"))
        assert ended.code == (2 if "batch=0" in words else 0)
        after = files_below(tmp_path)
        after.pop("log")
        assert after == before and not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bacth=8"], "unknown key 'bacth' in 'bacth=8' on the command line: did you mean 'batch'?"),
        (["batch=many"], "batch=many on the command line: expected an integer"),
        (["data=/nowhere"], "data directory '/nowhere' does not exist"),
        (["run.dir=/dev/null/x"], "run.dir='/dev/null/x': cannot create it (Not a directory)"),
        (["init_from=/nowhere"], "'/nowhere' is no run directory (it has no config.yaml)"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(train: Callable[..., Ended], words: list[str], message: str) -> None:
    ended = train(*words)
    assert (ended.code, ended.output) == (2, f"{TOY}: error: {message}\n")


def test_a_batch_that_does_not_divide_over_the_ranks_is_refused(tiny_directory: Path, tmp_path: Path) -> None:
    words = (f"data={tiny_directory}", f"run.dir={tmp_path / 'run'}", "batch=3", "threads=1")
    ended = fork_ranks(tmp_path / "log", TOY, *words)
    assert [rank.code for rank in ended] == [2, 2]
    assert f"{TOY}: error: batch=3 does not divide over 2 processes" in ended[0].output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["", "[]", "a: [", "\t"])
def test_a_damaged_configuration_is_refused_by_name(train: Callable[..., Ended], copied: Path, content: str) -> None:
    (copied / "config.yaml").write_text(content)
    ended = train()
    assert ended.code == 2 and f"error: {copied}/config.yaml: " in ended.output and ended.output.count("\n") == 1


# --- the weights of another run


def test_a_run_starts_from_the_weights_of_another(
    train: Callable[..., Ended], uninterrupted: Path, tmp_path: Path
) -> None:
    ended = train(f"init_from={uninterrupted}", "rate=0", "total_nimg=4")
    assert ended.code == 0 and f"starting from the weights of {uninterrupted} (model)" in ended.output
    _, state, nimg = load_run(tmp_path / "run")
    _, origin, _ = load_run(uninterrupted)
    assert nimg == 4 and torch.equal(state["model"]["weight"], origin["model"]["weight"])
    assert float(state["optimizer"]["state"][0]["step"]) == 1  # the optimizer is new


def test_a_checkpoint_of_another_shape_is_refused_in_one_line(
    train: Callable[..., Ended], uninterrupted: Path, tmp_path: Path
) -> None:
    larger = write_tiny_shards(tmp_path / "larger", size=9)
    ended = train(f"init_from={uninterrupted}", f"data={larger}")
    assert ended.code == 2 and ended.output.count("\n") == 1
    assert f"init_from={uninterrupted}: model does not fit this run" in ended.output and "size mismatch" in ended.output


def test_load_run_finds_the_last_a_named_and_the_best_checkpoint(uninterrupted: Path) -> None:
    config, last, nimg = load_run(uninterrupted)
    assert (config["batch"], nimg) == (BATCH, TOTAL) and set(last) == {"model", "optimizer"}
    named = uninterrupted / "checkpoints" / f"{36:012d}.safetensors"
    assert load_run(uninterrupted, str(named))[2] == 36
    with pytest.raises(UserError, match=r"checkpoint=best: no checkpoint in .* has a score"):
        load_run(uninterrupted, "best")


def test_load_run_says_what_is_missing(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run directory"):
        load_run(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        load_run(copied, str(copied / "checkpoints" / "1.safetensors"))
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(UserError, match="holds no valid checkpoint yet"):
        load_run(copied)
