"""Runs that really collapse, and go back: learning rates of 1 kill the discriminator of a toy within a few steps."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_jobs.training.checkpoint import CheckpointStore, load_state
from s3gan import train
from tests.processes import Ended, fork, fork_ranks
from tests.s3gan.toy_data import make_data, make_table

KEYS = [
    *("network=biggan_light", "method=supervised", "width=2", "batch=16", "threads=1"),
    *("log_nimg=16", "checkpoint_nimg=32", "sample_nimg=1000", "health_nimg=48", "min_d_loss=0"),
]
COLLAPSING = ["d_lr=1", "g_lr=1"]
LAST = "checkpoints/000000000320.safetensors"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("data")
    shards = make_data(directory / "train")
    return [f"data={shards.directory}", f"labels={make_table(directory / 'table.parquet', shards)}", *KEYS]


@pytest.fixture(scope="module")
def healthy(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was well for 144 images and whose learning rates are then raised a thousand times; to be copied."""
    run = tmp_path_factory.mktemp("healthy") / "run"
    rates = ["d_lr=0.001", "g_lr=0.001", "rollback_lr=0.001"]
    assert train.main([*words, *rates, f"run.dir={run}", "total_nimg=144"]) == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"d_lr": 1.0, "g_lr": 1.0}))
    return run


def go_on(words: list[str], run: Path) -> list[str]:
    return [*words, *COLLAPSING, "rollback_lr=0.001", f"run.dir={run}", "total_nimg=320"]


def copy_of(run: Path, target: Path) -> Path:
    return Path(shutil.copytree(run, target))


@pytest.fixture(scope="module")
def returned(
    words: list[str], healthy: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Ended, list[str]]:
    """The run that collapsed and went back, undisturbed; what it printed; and its changes to the run directory."""
    directory = tmp_path_factory.mktemp("returned")
    run = copy_of(healthy, directory / "run")
    listing = directory / "writes"
    ended = fork(
        directory / "log", "tests.s3gan.training.killed_train", *go_on(words, run), env={"WRITES": str(listing)}
    )
    assert ended.code == 0, ended.output
    return run, ended, listing.read_text().splitlines()


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def health(run: Path, nimg: int) -> dict[str, Any]:
    return load_state(run / f"checkpoints/{nimg:012d}.safetensors")[0]["health"]


def test_a_run_that_collapses_goes_back_to_the_last_healthy_checkpoint_and_says_so(
    returned: tuple[Path, Ended, list[str]],
) -> None:
    run, ended, _ = returned
    told = [line for line in ended.output.splitlines() if "diverged since" in line]
    assert len(told) == 1 and "same score" in told[0] and "it may go back 2 more times" in told[0]
    assert "back to the checkpoint of 96 images with other draws and learning rates times 0.001" in told[0]
    (event,) = health(run, 320)["rollbacks"]
    assert event["back_to"] == 96 and 144 <= event["since"] <= event["nimg"] - 48 < 320
    section = json.loads((run / "report" / "health.json").read_text())
    assert [row[0] for row in section["table"]["rows"]] == [event["nimg"]]


def test_the_abandoned_stretch_leaves_neither_lines_nor_checkpoints_and_the_new_one_is_well(
    returned: tuple[Path, Ended, list[str]],
) -> None:
    run, _, _ = returned
    found = lines(run)
    assert [line["nimg"] for line in found] == list(range(16, 321, 16))
    assert all(line["diversity/scores"] > 0.01 for line in found)
    stems = {int(path.stem) for path in CheckpointStore(run / "checkpoints").paths()}
    assert {288, 320} <= stems <= {224, 288, 320} | set(range(96, 289, 32))
    state = load_state(run / LAST)[0]
    assert {group["lr"] for player in "gd" for group in state[f"optimizer_{player}"]["param_groups"]} == {0.001}
    rewritten = load_state(run / "checkpoints" / f"{max(stems - {288, 320}):012d}.safetensors")[0]["health"]
    assert len(rewritten["rollbacks"]) == 1


def test_draws_after_a_roll_back_are_others(words: list[str], healthy: Path, returned: Any, tmp_path: Path) -> None:
    """The same rates without a roll-back lead elsewhere from the same checkpoint."""
    run = copy_of(healthy, tmp_path / "run")
    for path in CheckpointStore(run / "checkpoints").paths():
        if int(path.stem) > 96:
            path.unlink()
            path.with_suffix(".json").unlink()
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"d_lr": 0.001, "g_lr": 0.001}))
    rates = ["d_lr=0.001", "g_lr=0.001", "rollback_lr=0.001"]
    assert train.main([*words, *rates, f"run.dir={run}", "total_nimg=320"]) == 0
    mine, theirs = ({line["nimg"]: line["loss/d"] for line in lines(path)} for path in (run, returned[0]))
    assert all(mine[nimg] == theirs[nimg] for nimg in range(16, 97, 16))
    assert all(mine[nimg] != theirs[nimg] for nimg in range(112, 321, 16))


def test_after_the_last_roll_back_the_run_ends_in_one_line_and_keeps_its_checkpoints(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    call = [*words, *COLLAPSING, "rollback_lr=1", f"run.dir={run}", "total_nimg=320"]
    assert train.main([*call, "rollback=1"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "after 1 rollbacks (rollback=1)" in error and "000000000000.safetensors" in error
    before = {path.name for path in CheckpointStore(run / "checkpoints").paths()}
    assert {"000000000000.safetensors"} < before
    section = json.loads((run / "report" / "health.json").read_text())
    assert [row[2] for row in section["table"]["rows"]] == ["back to 0", "the run ended"]
    assert train.main([*call, "rollback=1"]) == 2  # the same end again
    assert {path.name for path in CheckpointStore(run / "checkpoints").paths()} == before
    assert train.main([*call, "rollback=2"]) == 2  # it may be allowed more
    assert "after 2 rollbacks (rollback=2)" in capsys.readouterr().err


def test_nobody_watches_where_rollback_is_0(words: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main([*words, *COLLAPSING, "rollback=0", f"run.dir={run}", "total_nimg=160"]) == 0
    assert lines(run)[-1]["diversity/scores"] < 1e-3
    assert [int(path.stem) for path in CheckpointStore(run / "checkpoints").paths()] == [128, 160]
    assert not (run / "report" / "health.json").exists()


def test_a_run_from_before_health_was_watched_goes_on(words: list[str], healthy: Path, tmp_path: Path) -> None:
    run = copy_of(healthy, tmp_path / "run")
    store = CheckpointStore(run / "checkpoints", keep_last=9)
    state, nimg = store.latest() or ({}, 0)
    state.pop("health")
    store.save(state, nimg)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config = {name: value for name, value in config.items() if name not in ("rollback", "min_d_loss", "rollback_lr")}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    call = [word for word in words if word != "min_d_loss=0"]
    assert train.main([*call, *COLLAPSING, f"run.dir={run}", "total_nimg=160"]) == 0
    assert health(run, 160)["healthy"] == 144


@pytest.mark.slow
@pytest.mark.parametrize(
    "after", [*(pytest.param(moment, marks=pytest.mark.cluster) for moment in (-2, -1, 1, 2, 4, 8, 30)), 0, 6]
)
def test_a_run_killed_around_a_roll_back_ends_with_the_very_weights_of_an_undisturbed_one(
    words: list[str], healthy: Path, returned: tuple[Path, Ended, list[str]], tmp_path: Path, after: int
) -> None:
    """Killed before the change to the run directory that comes so long after the one that decides."""
    whole, _, writes = returned
    decision = next(n for n, line in enumerate(writes, 1) if line.startswith("os.rename /checkpoints/.000000000096"))
    run = copy_of(healthy, tmp_path / "run")
    env = {"KILL_AT_WRITE": str(decision + after)}
    killed = fork(tmp_path / "victim", "tests.s3gan.training.killed_train", *go_on(words, run), env=env)
    assert killed.code == -signal.SIGKILL, killed.output
    again = fork(tmp_path / "again", "s3gan.train", *go_on(words, run))
    assert again.code == 0, again.output
    assert (run / LAST).read_bytes() == (whole / LAST).read_bytes()
    assert health(run, 320) == health(whole, 320)
    assert (run / "report" / "health.json").read_bytes() == (whole / "report" / "health.json").read_bytes()
    mine, theirs = (
        [{name: value for name, value in line.items() if "speed" not in name} for line in lines(each)]
        for each in (run, whole)
    )
    assert mine == theirs


@pytest.mark.cluster
def test_two_processes_go_back_together(words: list[str], healthy: Path, tmp_path: Path) -> None:
    run = copy_of(healthy, tmp_path / "run")
    for ended in fork_ranks(tmp_path / "ranks", "s3gan.train", *go_on(words, run)):
        assert ended.code == 0, ended.output
    assert [event["back_to"] for event in health(run, 320)["rollbacks"]] == [96]
