import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
import yaml

from cluster_jobs.checkpoint import load_state
from cluster_jobs.errors import UserError
from cluster_jobs.places import neighbouring
from cluster_jobs.run import Run, load_run
from cluster_jobs.shards import Shards
from cluster_jobs.stream import Stream
from tests.cluster_jobs.tiny import files_below, write_tiny_shards
from tests.processes import HANG_SECONDS, ROOT, Ended, Forked, fork, fork_ranks, launch, start_ranks

TOY = "tests.cluster_jobs.toy_train"
TOTAL, BATCH = 40, 4
KEYS = (f"batch={BATCH}", f"total_nimg={TOTAL}", "checkpoint_nimg=12", "log_nimg=8", "keep_best=0", "threads=1")
HOSTILE = """a b=é='q' "d" [1],{x},${y}"""


def final(run: Path, nimg: int = TOTAL) -> bytes:
    """The bytes of the last checkpoint's tensors: weights and optimizer."""
    return (run / "checkpoints" / f"{nimg:012d}.safetensors").read_bytes()


def record(run: Path) -> dict[str, str | int]:
    return json.loads((run / "exit.json").read_text())


def order(run: Path, rank: int = 0) -> dict[int, list[int]]:
    """What a rank saw at each position; a position seen in two lives must have shown the same samples."""
    seen: dict[int, list[int]] = {}
    for line in (run / f"order-{rank}.txt").read_text().splitlines():
        position, *indices = map(int, line.split())
        assert seen.setdefault(position, indices) == indices
    return seen


def assert_tidy(run: Path) -> None:
    """No partial file is left: no temporary names, and only whole checkpoints."""
    assert not [path for path in run.rglob(".*")]
    files = sorted((run / "checkpoints").iterdir())
    for tensors, manifest in zip(files[1::2], files[::2], strict=True):
        assert manifest == tensors.with_suffix(".json")
        load_state(tensors)


def wait_for(condition: Callable[[], bool], seconds: float = HANG_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def uninterrupted(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed; to be read only."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    ended = fork(run.with_name("log"), TOY, f"data={tiny_directory}", f"run.dir={run}", *KEYS)
    assert ended.code == 0, ended.output
    return run


@pytest.fixture
def copied(uninterrupted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(uninterrupted, tmp_path / "run"))


@pytest.fixture
def train(tiny_directory: Path, tmp_path: Path) -> Callable[..., Ended]:
    """Runs the toy in ``tmp_path/run`` unless told otherwise."""

    def call(*words: str, **env: str) -> Ended:
        usual = (f"data={tiny_directory}", f"run.dir={tmp_path / 'run'}", *KEYS)
        return fork(tmp_path / "log", TOY, *usual, *words, env=env)

    return call


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
@pytest.mark.slow
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


@pytest.mark.slow
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


# --- two processes


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
    index = int(Stream(shards, seed=0, batch=BATCH, mine=neighbouring(BATCH, 1, 2)).indices(8)[0])
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
    of_this_life = ("exit.json", "lock")
    before = {name: content for name, content in files_below(copied).items() if name not in of_this_life}
    assert train().code == 0
    assert {name: content for name, content in files_below(copied).items() if name not in of_this_life} == before | {
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
