"""Re-clustering on D's features: which images change their cluster, and what a run leaves of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster_jobs.cli.config import RunKeys
from cluster_jobs.data.label_table import LabelTable, aligned_labels, read_table, write_table
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.image_clusters import nimg_of_clusters
from cluster_jobs.training.run import Run, load_run
from s3gan import train
from s3gan.inference.network_file import read_network
from s3gan.methods import MethodName
from s3gan.networks import NetworkName
from s3gan.training import reclustering
from s3gan.training.conditioning import open_training_labels, read_conditions
from s3gan.training.config import FakeLabels, TrainConfig
from s3gan.training.fakes import Fakes
from s3gan.training.game import make_game
from s3gan.training.reclustering import Reclustering, starting_means
from tests.processes import fork, fork_ranks
from tests.s3gan.toy_data import CLASSES, make_data, make_table
from tests.s3gan.training.reclustering_words import words

TRUTH = np.arange(48) % 3  # the class of every image of the toy data, by its index
FROZEN = ["d_lr=1e-12"]  # too little to change a weight in single precision


def clusters_of(run: Path, nimg: int) -> np.ndarray:
    return np.fromfile(run / "clusters" / f"{nimg:012d}.i32", np.int32)


def write_labels(path: Path, shards: Shards, labels: np.ndarray, origin: str = "cluster") -> Path:
    metadata = {"classes": ["a", "b", "c"], "method": "kmeans", "fingerprint": shards.fingerprint}
    count = len(shards)
    table = LabelTable(shards.keys(), labels, np.full(count, origin), np.ones(count, np.float32), metadata=metadata)
    write_table(path, table)
    return path


def opened(data: Path, run: Path, labels: np.ndarray | None, **keys: object) -> Reclustering:
    """What the training command makes before its first step; without labels it starts from none."""
    shards = Shards(data / "train")
    table = "" if labels is None else str(write_labels(run.parent / f"{run.name}.parquet", shards, labels))
    config = TrainConfig(
        run=RunKeys(dir=str(run)),
        data=str(data / "train"),
        labels=table,
        method=MethodName["self_conditioned"],
        network=NetworkName["biggan_light"],
        classes=3,
        width=2,
        batch=16,
        threads=1,
        watchdog_seconds=0,
        recluster_nimg=32,
        recluster_count=40,
    )
    for name, value in keys.items():
        setattr(config, name, value)
    config.check()
    conditions = read_conditions(config, shards)
    started = Run(config)
    game, _ = make_game(config, started, conditions, shards)
    return Reclustering(started, game, conditions, open_training_labels(started, conditions, shards), shards)


def test_nothing_moves_where_the_features_stay_and_the_clusters_fit_them(data: Path, tmp_path: Path) -> None:
    clusters = opened(data, tmp_path / "run", TRUTH[::-1])
    for nimg in (32, 64):
        metrics = clusters.update(nimg)
        assert metrics["clusters/changed"] == metrics["clusters/empty"] == 0
        assert metrics["clusters/nmi"] == pytest.approx(1) and metrics["clusters/size_entropy"] == pytest.approx(1)
        assert np.array_equal(clusters_of(tmp_path / "run", nimg), TRUTH[::-1])


def test_images_in_the_wrong_cluster_move_and_the_clusters_keep_their_numbers(data: Path, tmp_path: Path) -> None:
    wrong = TRUTH.copy()
    wrong[[0, 7, 23, 30]] = (TRUTH[[0, 7, 23, 30]] + 1) % 3
    clusters = opened(data, tmp_path / "run", wrong)
    assert clusters.update(32)["clusters/changed"] == pytest.approx(4 / 48)
    assert np.array_equal(clusters.training_labels.labels, TRUTH)


def test_k_means_that_numbers_its_clusters_anew_changes_no_number(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clusters = opened(data, tmp_path / "run", TRUTH)
    monkeypatch.setattr(
        reclustering, "starting_means", lambda points, labels, k: starting_means(points, labels, k)[[2, 0, 1]]
    )
    assert clusters.update(32)["clusters/changed"] == 0


def test_fakes_follow_the_new_sizes_and_their_draws_stay_keyed(data: Path, tmp_path: Path) -> None:
    skewed = np.where(np.arange(48) < 40, 0, TRUTH)
    clusters = opened(data, tmp_path / "run", skewed)
    fakes = clusters.game.fakes
    assert clusters.update(32)["clusters/empty"] == 0
    counts = np.bincount(clusters.training_labels.labels, minlength=3)
    assert clusters.conditions.counts == counts.tolist() and counts.tolist() != np.bincount(skewed).tolist()
    assert clusters.conditions.weights == pytest.approx(counts / 48)
    torch.testing.assert_close(fakes.weights, torch.tensor(counts / 48, dtype=torch.float32))
    same = Fakes(0, 16, slice(None), fakes.z_dim, 3, fakes.device, torch.tensor(counts / 48, dtype=torch.float32))
    for mine, theirs in zip(fakes.draw("generator", 48), same.draw("generator", 48), strict=True):
        assert torch.equal(mine, theirs)


def test_fakes_may_stay_uniform_over_the_clusters_that_are_not_empty(data: Path, tmp_path: Path) -> None:
    clusters = opened(data, tmp_path / "run", None, fake_labels=FakeLabels.uniform)
    clusters.update(0)
    assert clusters.conditions.weights == pytest.approx([1 / 3] * 3)


def test_a_state_puts_its_clusters_back_in_force_and_that_of_the_start_the_table(data: Path, tmp_path: Path) -> None:
    wrong = np.roll(np.repeat([0, 1, 2], [30, 10, 8]), 5)
    clusters = opened(data, tmp_path / "run", wrong)
    start = clusters.state_dict()
    clusters.update(32)
    found, state = np.array(clusters.training_labels.labels), clusters.state_dict()
    clusters.load_state_dict(start)
    assert np.array_equal(clusters.training_labels.labels, wrong) and clusters.conditions.counts == [30, 10, 8]
    torch.testing.assert_close(clusters.game.fakes.weights, torch.tensor([30, 10, 8]) / 48)
    clusters.load_state_dict(state)
    assert np.array_equal(clusters.training_labels.labels, found)
    torch.testing.assert_close(clusters.game.fakes.weights, torch.from_numpy(np.bincount(found) / 48).float())


def test_a_run_leaves_the_clusters_of_its_checkpoints_and_their_tables(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main(words(data, run, *FROZEN, "checkpoint_nimg=96")) == 0
    names = {path.name for path in (run / "clusters").iterdir()}
    assert names == {f"000000000{nimg}.{kind}" for nimg in ("064", "128") for kind in ("i32", "json", "parquet")}
    state, nimg = load_run(run)[1], load_run(run)[2]
    assert (nimg, state["clusters"]["nimg"]) == (160, 128)  # at 160 there is no step left for new ones
    network, frozen = read_network(run), json.loads((run / "network.json").read_text())
    labels, shards = clusters_of(run, 128), Shards(data / "train")
    assert network["class_counts"] == np.bincount(labels).tolist() and frozen["class_counts"] == [16.0] * 3
    table = read_table(network["label_table"]["path"])
    assert np.array_equal(aligned_labels(table, shards), labels) and set(table.origin) == {"cluster"}
    assert table.classes == network["class_names"] == ["cluster 0", "cluster 1", "cluster 2"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    moved = {line["nimg"]: line["clusters/changed"] for line in lines if "clusters/changed" in line}
    assert moved == {48: 0, 80: 0, 112: 0, 144: 0}  # in the line of the step that follows
    assert "clusters/size_entropy" in lines[0]  # clusters of the untrained D
    section = json.loads((run / "report" / "samples.json").read_text())
    assert [row[1] for row in section["table"]["rows"]] == network["class_counts"]


def test_a_checkpoint_has_the_newest_clusters_that_were_found_before_it(tmp_path: Path) -> None:
    (tmp_path / "clusters").mkdir()
    for nimg in (0, 32, 64):
        (tmp_path / "clusters" / f"{nimg:012d}.json").write_text("{}")
    assert [nimg_of_clusters(tmp_path, nimg) for nimg in (0, 16, 32, 48, 64, 65, None)] == [None, 0, 0, 32, 32, 64, 64]
    assert nimg_of_clusters(tmp_path / "nowhere") is None


def test_without_a_cadence_the_clusters_stay_those_of_the_start(data: Path, tmp_path: Path) -> None:
    table = write_labels(tmp_path / "table.parquet", Shards(data / "train"), TRUTH)
    run = tmp_path / "run"
    assert train.main(words(data, run, f"labels={table}", "recluster_nimg=0", "total_nimg=48")) == 0
    assert not (run / "clusters").exists() and read_network(run)["label_table"]["path"] == str(table)


def test_hidden_labels_have_no_part_in_clusters(data: Path, tmp_path: Path) -> None:
    make_data(tmp_path / "unlabelled" / "train", hidden=False)
    runs = [tmp_path / "with", tmp_path / "without"]
    for run, source in zip(runs, (data, tmp_path / "unlabelled"), strict=True):
        assert train.main(words(source, run, "total_nimg=64")) == 0
    for name in ("checkpoints/000000000064.safetensors", "clusters/000000000032.i32"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()


def test_clusters_that_were_changed_after_training_are_refused_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main(words(data, run, "total_nimg=48")) == 0
    path = run / "clusters" / "000000000032.i32"
    path.write_bytes(path.read_bytes()[::-1])
    capsys.readouterr()
    assert train.main(words(data, run, "total_nimg=96")) == 2
    error = capsys.readouterr().err.strip()
    assert "000000000032.i32: torn or changed" in error and "\n" not in error


def test_a_sick_discriminator_finds_no_clusters_and_ends_no_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clusters = opened(data, tmp_path / "run", TRUTH)
    for weight in clusters.game.discriminator.parameters():
        weight.data.fill_(torch.nan)
    assert clusters.update(32) == {} and np.array_equal(clusters.training_labels.labels, TRUTH)
    assert "no new clusters at 32 images" in capsys.readouterr().out


def test_images_that_are_held_out_have_no_part_in_centroids(data: Path, tmp_path: Path) -> None:
    clusters = opened(data, tmp_path / "run", TRUTH)
    clusters.subset = np.flatnonzero(
        TRUTH < 2
    )  # the third class is never seen, so that two classes share three clusters
    clusters.update(32)
    assert set(clusters.training_labels.labels[TRUTH == 2]) < {0, 1, 2} and len(clusters.training_labels.labels) == 48
    assert len(set(clusters.training_labels.labels[TRUTH < 2])) == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["classes=0"], "classes=0"),
        (["labels=true.parquet"], "takes labels of origin cluster or random"),
        (["labels=part.parquet"], "covers 10 of 48"),
        (["labels=foreign.parquet"], "made for other data"),
        (["recluster_count=2"], "3 clusters of 2 images"),
        (["recluster_count=0"], "recluster_count=0"),
        (["recluster_nimg=-1"], "recluster_nimg=-1"),
        (["min_confidence=0.5"], "forgets the table's labels"),
        (["label_softness=1"], "forgets the table's labels"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_no_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, keys, message
) -> None:
    shards = Shards(data / "train")
    make_table(tmp_path / "true.parquet", shards)
    make_table(tmp_path / "part.parquet", shards, origin="cluster", count=10)
    make_table(tmp_path / "foreign.parquet", make_data(tmp_path / "foreign", seed=1), origin="cluster")
    monkeypatch.chdir(tmp_path)
    named = {word.partition("=")[0]: word for word in words(data, tmp_path / "run", *keys)}
    assert train.main([*named.values()]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_may_start_from_random_labels_and_turns_images_too(data: Path, tmp_path: Path) -> None:
    shards, run = Shards(data / "train"), tmp_path / "run"
    table = make_table(tmp_path / "table.parquet", shards, origin="random")
    assert train.main(words(data, run, f"labels={table}", "method=self_conditioned_ss")) == 0
    assert read_network(run)["class_names"] == [f"cluster {number}" for number in range(len(CLASSES))]


@pytest.mark.cluster
def test_two_processes_find_the_clusters_of_one(data: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert fork(tmp_path / "log", "s3gan.train", *words(data, one, "total_nimg=48")).code == 0
    for ended in fork_ranks(tmp_path / "ranks", "s3gan.train", *words(data, two, "total_nimg=48")):
        assert ended.code == 0, ended.output
    assert (one / "clusters" / "000000000032.json").read_bytes() == (
        two / "clusters" / "000000000032.json"
    ).read_bytes()
    assert np.array_equal(clusters_of(one, 32), clusters_of(two, 32))
    assert len(np.unique(clusters_of(one, 32))) == 3
