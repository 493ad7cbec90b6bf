"""A run that re-clusters and is killed, goes back or grows ends with the clusters of an undisturbed one."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from cluster_jobs.training.checkpoint import load_state
from tests.processes import Ended, Forked
from tests.s3gan.training.reclustering_words import words

MOVING = ["classes=8", "d_lr=0.001", "total_nimg=112"]  # with these, images change their clusters
END = "checkpoints/000000000112.safetensors"


def killable(data: Path, run: Path, *keys: str, **env: object) -> Ended:
    """The training command in a process that writes down, or is killed at, its changes to the run directory."""
    log = run.parent / f"{run.name}.log"
    variables = {name: str(value) for name, value in env.items()}
    return Forked(log, "tests.s3gan.training.killed_train", *words(data, run, *keys), env=variables).ended(240)


def assert_same_run(run: Path, whole: Path) -> None:
    """Weights, clusters and what was told of them are those of the other run."""
    assert (run / END).read_bytes() == (whole / END).read_bytes()
    left = {path.name: path.read_bytes() for path in (run / "clusters").iterdir()}
    assert not [name for name in left if name.endswith(".tmp")]
    for path in (whole / "clusters").iterdir():  # a kill before retention leaves one checkpoint more, with its clusters
        assert left[path.name] == path.read_bytes(), path.name
    mine, theirs = ([json.loads(line) for line in (each / "metrics.jsonl").open()] for each in (run, whole))
    assert [line.get("clusters/changed") for line in mine] == [line.get("clusters/changed") for line in theirs]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run that nothing interrupted, and its changes to the run directory."""
    directory = tmp_path_factory.mktemp("whole")
    ended = killable(data, directory / "run", *MOVING, WRITES=directory / "writes")
    assert ended.code == 0, ended.output
    return directory / "run", (directory / "writes").read_text().splitlines()


def kill_and_go_on(data: Path, run: Path, whole: Path, write: int) -> None:
    """A run killed before one of its changes to the run directory, and started again, is the undisturbed one."""
    killed = killable(data, run, *MOVING, KILL_AT_WRITE=write)
    assert killed.code == -signal.SIGKILL, f"write {write}:\n{killed.output}"
    again = killable(data, run, *MOVING)
    assert again.code == 0, again.output
    assert_same_run(run, whole)


@pytest.mark.cluster
def test_a_run_killed_in_a_re_clustering_ends_with_the_very_weights_and_clusters_of_an_undisturbed_one(
    data: Path, tmp_path: Path, whole: tuple[Path, list[str]]
) -> None:
    undisturbed, writes = whole
    assert any(json.loads(line).get("clusters/changed") for line in (undisturbed / "metrics.jsonl").open())
    written = writes.index("os.rename " + next(line for line in writes if "64.json." in line).split()[1])
    kill_and_go_on(data, tmp_path / "run", undisturbed, written + 1)


@pytest.mark.cluster
def test_so_does_a_run_killed_before_any_write_of_a_re_clustering_or_while_it_writes_its_tables(
    data: Path, tmp_path: Path, whole: tuple[Path, list[str]]
) -> None:
    undisturbed, writes = whole
    numbered = list(enumerate(writes, 1))
    first = next(number for number, line in numbered if " /clusters/" in line and "000000000064" in line)
    after = next(number for number, line in numbered if number > first and "/checkpoints/" in line)
    tables = next(number for number, line in numbered if ".parquet." in line)
    found = [number for number, line in numbered if first <= number < after and " /clusters/" in line]
    assert len(found) >= 6
    for number in (*found, after, tables):
        kill_and_go_on(data, tmp_path / f"run-{number}", undisturbed, number)


@pytest.mark.cluster
def test_a_run_that_goes_back_takes_up_the_clusters_of_that_time(data: Path, tmp_path: Path) -> None:
    """Learning rates of 1 kill D within a few steps; a thousandth of them does not."""
    healthy, whole, killed = (tmp_path / name for name in ("healthy", "whole", "killed"))
    watched = ["health_nimg=48", "min_d_loss=0", "log_nimg=16", "checkpoint_nimg=32", "rollback_lr=0.001", "classes=8"]
    assert killable(data, healthy, *watched, "d_lr=0.001", "g_lr=0.001", "total_nimg=96").code == 0
    config = yaml.safe_load((healthy / "config.yaml").read_text())
    (healthy / "config.yaml").write_text(yaml.safe_dump(config | {"d_lr": 1.0, "g_lr": 1.0}))
    keys = [*watched, "d_lr=1", "g_lr=1", "total_nimg=320"]
    for run in (whole, killed):
        shutil.copytree(healthy, run)
    ended = killable(data, whole, *keys, WRITES=tmp_path / "writes")
    assert ended.code == 0 and ended.output.count("diverged since") == 1, ended.output
    writes = (tmp_path / "writes").read_text().splitlines()
    place = int(ended.output.split("back to the checkpoint of ")[1].split()[0])
    commit = [number for number, line in enumerate(writes, 1) if f"os.rename /checkpoints/.{place:012d}.json" in line][
        -1
    ]
    assert killable(data, killed, *keys, KILL_AT_WRITE=commit + 3).code == -signal.SIGKILL
    assert killable(data, killed, *keys).code == 0
    state, _ = load_state(whole / "checkpoints/000000000320.safetensors")
    assert state["health"]["rollbacks"] and state["clusters"]["nimg"] == 288
    for name in ("checkpoints/000000000320.safetensors", "clusters/000000000288.i32"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()


@pytest.mark.cluster
def test_a_run_that_grows_trains_what_a_longer_run_trains(
    data: Path, tmp_path: Path, whole: tuple[Path, list[str]]
) -> None:
    """It ends where a re-clustering is due: that one belongs to the steps after it."""
    grown = tmp_path / "grown"
    for total in (64, 112):
        assert killable(data, grown, *MOVING, f"total_nimg={total}").code == 0
    assert (grown / END).read_bytes() == (whole[0] / END).read_bytes()
