"""The training command as a user runs it, on a tiny data set."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cluster_jobs.data.shards import Shards
from cluster_jobs.training.run import load_run
from s3gan import train
from tests.processes import fork, fork_ranks
from tests.s3gan.toy_data import CLASSES, TINY, make_data, make_table

LAST = "checkpoints/000000000160.safetensors"


def words(data: Path, run: Path, method: str = "s3gan", table: str = "table.parquet") -> list[str]:
    labels = [f"labels={data / table}"] if table else []
    return [f"data={data / 'train'}", *labels, f"method={method}", f"run.dir={run}", *TINY]


def test_a_run_leaves_everything_that_later_stages_read(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "a run = 'é'"
    assert train.main(words(data, run)) == 0
    network = json.loads((run / "network.json").read_text())
    assert (network["size"], network["channels"], network["width"], network["classes"]) == (32, 1, 2, 3)
    assert network["class_names"] == CLASSES and network["class_counts"] == [16, 16, 16]
    assert network["label_table"]["method"] == "reveal" and network["fake_weights"] is None
    _, state, nimg = load_run(run)
    assert nimg == 160
    assert set(state) == {"generator", "discriminator", "generator_ema", "optimizer_g", "optimizer_d", "health"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["nimg"] for line in lines] == list(range(16, 161, 16))
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert {"loss/d", "loss/g", "loss/rotation_d", "loss/rotation_g", "skipped/d", "skipped/g"} <= set(lines[-1])
    with Image.open(run / "samples" / "000000000096.png") as picture:
        assert picture.height == 2 * (3 * 32 + 2 * 2)  # a row for each class, two pixels apart, twice as large
    section = json.loads((run / "report" / "samples.json").read_text())
    assert section["table"]["rows"] == [[name, 16] for name in CLASSES]
    assert "left, right, both" in section["pictures"][0]["caption"]
    images = torch.jit.load(run / "export" / "generator.pt")(torch.randn(5, network["z_dim"]), torch.arange(5) % 3)
    assert images.shape == (5, 1, 32, 32)


def test_there_is_a_generator_step_after_every_second_discriminator_step(data: Path, tmp_path: Path) -> None:
    assert train.main(words(data, tmp_path / "run")) == 0
    _, state, _ = load_run(tmp_path / "run")
    steps = {player: state[f"optimizer_{player}"]["state"][0]["step"].item() for player in "dg"}
    assert steps == {"d": 10, "g": 5}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "keys"),
    [
        pytest.param(2, [], marks=pytest.mark.cluster),
        pytest.param(7, [], marks=pytest.mark.cluster),
        (7, ["accumulate=2", "rotated_batch_fraction=2"]),
        pytest.param(7, ["precision=bf16"], marks=pytest.mark.cluster),
    ],
)
def test_a_killed_run_ends_with_the_very_weights_of_an_uninterrupted_one(
    data: Path, tmp_path: Path, lines: int, keys: list[str]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert fork(tmp_path / "log", "s3gan.train", *words(data, whole), *keys).code == 0
    after = {"KILL_AT": "*/metrics.jsonl", "KILL_COUNT": str(lines + 1)}
    victim = fork(tmp_path / "victim", "tests.killed", "s3gan.train", *words(data, killed), *keys, env=after)
    assert victim.code == -signal.SIGKILL, victim.output
    assert (killed / "metrics.jsonl").read_text().count("\n") == lines and not (killed / LAST).is_file()
    again = fork(tmp_path / "again", "s3gan.train", *words(data, killed), *keys)
    assert again.code == 0, again.output
    resumed = "at 0 images" if lines < 3 else "images"  # the start is a checkpoint, the next comes with the third line
    assert f"resuming {killed} " in again.output and resumed in again.output
    assert (killed / LAST).read_bytes() == (whole / LAST).read_bytes()
    assert (killed / "export" / "generator.pt").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("method", [pytest.param("supervised", marks=pytest.mark.cluster), "s2gan_co"])
def test_two_processes_follow_the_gradients_of_one(data: Path, tmp_path: Path, method: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    make_table(tmp_path / "part.parquet", Shards(data / "train"), count=17)  # ranks see unequal shares of it
    table = tmp_path / "part.parquet" if method == "s2gan_co" else data / "table.parquet"
    steps = [
        *TINY,
        "total_nimg=64",
    ]  # two generator steps and four discriminator steps: weights differ by rounding only
    assert fork(tmp_path / "log", "s3gan.train", *words(data, one, method), f"labels={table}", *steps).code == 0
    for ended in fork_ranks(tmp_path / "ranks", "s3gan.train", *words(data, two, method), f"labels={table}", *steps):
        assert ended.code == 0, ended.output
    (_, state, nimg), (_, other, _) = (load_run(run) for run in (one, two))
    assert nimg == 64
    for player in ("optimizer_g", "optimizer_d"):
        for number, moments in state[player]["state"].items():  # beta1 is zero: the first moment is the last gradient
            theirs = other[player]["state"][number]["exp_avg"]
            torch.testing.assert_close(moments["exp_avg"], theirs, rtol=1e-3, atol=2e-4)


@pytest.mark.cluster
def test_two_processes_train_with_rotation(data: Path, tmp_path: Path) -> None:
    for ended in fork_ranks(
        tmp_path / "ranks", "s3gan.train", *words(data, tmp_path / "run"), "rotated_batch_fraction=2"
    ):
        assert ended.code == 0, ended.output
    assert load_run(tmp_path / "run")[2] == 160


@pytest.mark.cluster
def test_a_run_says_first_what_memory_it_takes_and_half_precision_keeps_less(data: Path, tmp_path: Path) -> None:
    kept = []
    for name in ("no", "bf16"):
        ended = fork(tmp_path / name, "s3gan.train", *words(data, tmp_path / f"run-{name}"), f"precision={name}")
        assert ended.code == 0, ended.output
        lines = ended.output.splitlines()[:3]
        assert [line.split(",")[1].split(":")[0] for line in lines] == [" generator", " discriminator", " in all"]
        kept.append(float(lines[1].split(" MiB activations")[0].split()[-1]))
    assert kept[1] < 0.8 * kept[0]
    states = [load_run(tmp_path / f"run-{name}")[1]["discriminator"] for name in ("no", "bf16")]
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in states[1].values())
    assert not all(torch.equal(value, states[0][name]) for name, value in states[1].items())


def test_hidden_labels_have_no_part_in_training(data: Path, tmp_path: Path) -> None:
    make_data(tmp_path / "unlabelled" / "train", hidden=False)
    runs = [tmp_path / "with", tmp_path / "without"]
    table = f"labels={data / 'table.parquet'}"
    for run, source in zip(runs, (data, tmp_path / "unlabelled"), strict=True):
        assert train.main([f"data={source / 'train'}", table, f"run.dir={run}", *TINY]) == 0
    assert (runs[0] / LAST).read_bytes() == (runs[1] / LAST).read_bytes()


@pytest.mark.parametrize(
    ("method", "origin", "classes"),
    [
        ("single_label", "", 1),
        ("random_label", "", 4),
        ("random_label", "random", 3),
        ("clustering", "cluster", 3),
        ("clustering_ss", "cluster", 3),
        ("s2gan", "inferred", 3),
        ("single_label_ss", "", 1),
        ("ssgan", "", 1),
        ("s3gan_co", "true", 3),
        ("labelled_only", "true", 3),
    ],
)
def test_every_method_trains(data: Path, tmp_path: Path, method: str, origin: str, classes: int) -> None:
    table = []
    if origin:
        shards = make_data(tmp_path / "train", channels=3)
        table = [f"labels={make_table(tmp_path / 'table.parquet', shards, origin=origin)}"]
    source = tmp_path / "train" if origin else data / "train"
    run = tmp_path / "run"
    assert train.main([f"data={source}", *table, f"method={method}", "classes=4", f"run.dir={run}", *TINY]) == 0
    network = json.loads((run / "network.json").read_text())
    assert network["classes"] == classes and network["channels"] == (3 if origin else 1)
    assert (network["fake_weights"] is not None) == (origin == "cluster")
    assert sum(network["class_counts"]) == pytest.approx(48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["labels=partial.parquet"], "covers 10 of 48"),
        (["labels=foreign.parquet"], "made for other data"),
        (["labels=nowhere.parquet"], "no such file"),
        (["labels="], "needs labels="),
        (["method=random_label", "labels="], "classes=0"),
        (["method=clustering"], "origin cluster"),
        (["batch=24"], "batch=24 does not divide"),
        (["accumulate=0"], "accumulate=0: expected a positive divisor of batch=16"),
        (["accumulate=3"], "accumulate=3: expected a positive divisor of batch=16"),
        (["accumulate=2"], "accumulate=2: expected a divisor of the 1 images to turn"),
        (["accumulate=half"], "accumulate=half on the command line: expected an integer"),
        (["compile=perhaps"], "compile=perhaps on the command line: expected true or false"),
        (["d_lr=0"], "d_lr=0"),
        (["ema_decay=1"], "ema_decay=1"),
        (["method=biggan"], "expected one of supervised"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_no_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, change, message
) -> None:
    shards = make_data(tmp_path / "shards")
    make_table(tmp_path / "partial.parquet", shards, count=10)
    make_table(tmp_path / "foreign.parquet", make_data(tmp_path / "foreign", seed=1))
    monkeypatch.chdir(tmp_path)
    named = {word.partition("=")[0]: word for word in [*words(data, tmp_path / "run"), *change]}
    assert train.main([*named.values()]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_go_on_with_another_label_table(data: Path, tmp_path: Path, capsys) -> None:
    shards, run = make_data(tmp_path / "train"), tmp_path / "run"
    make_table(tmp_path / "table.parquet", shards)
    assert train.main(words(tmp_path, run)) == 0
    make_table(tmp_path / "table.parquet", shards, made_by="import")
    assert train.main(words(tmp_path, run)) == 2
    assert "label_table differ" in capsys.readouterr().err


def test_validation_needs_no_input_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ["data=nowhere", "labels=nowhere.parquet", f"run.dir={tmp_path / 'run'}"]
    assert train.main([*named, "batch=64", "validate=true"]) == 0
    assert "rotated_batch_fraction: 4" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "table", "key", "reason"),
    [
        ("s3gan", "", "min_confidence", "there is no label table"),
        ("clustering", "", "min_confidence", "there is no label table"),
        ("s2gan", "", "label_softness", "there is no label table"),
        ("random_label", "", "min_confidence", "labels of origin random are all sure"),
        ("single_label", "", "label_softness", "labels of origin single are all sure"),
        ("s3gan_co", "table", "min_confidence", "labels of origin true are all sure"),
        ("s2gan_co", "table", "label_softness", "one of the methods s2gan, s3gan"),
        ("supervised", "table", "min_confidence", "one of the methods clustering, clustering_ss, s2gan, s3gan"),
        ("labelled_only", "table", "label_softness", "labels of origin true are all sure"),
        ("clustering_ss", "table", "label_softness", "method=clustering_ss has no use for it"),
        ("self_conditioned", "table", "label_softness", "forgets the table's labels"),
    ],
)
def test_a_key_about_unsure_labels_is_refused_where_none_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, table: str, key: str, reason: str
) -> None:
    labels = f"labels={tmp_path / 'table.parquet'}" if table else "labels="
    named = ["data=nowhere", labels, f"method={method}", "classes=3", f"run.dir={tmp_path / 'run'}", "batch=64"]
    assert train.main([*named, f"{key}=0.5", "validate=true"]) == 2
    error = capsys.readouterr().err.strip()
    assert f"{key}=0.5: " in error and reason in error and "\n" not in error


def test_a_published_run_is_a_recipe_whose_keys_may_be_overridden(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["data=nowhere", "labels=nowhere.parquet", f"run.dir={tmp_path / 'run'}"]
    assert train.main([*named, "+recipe=imagenet128_compare_gan", "batch=1024", "validate=true"]) == 0
    keys = yaml.safe_load(capsys.readouterr().out)
    assert (keys["width"], keys["d_lr"], keys["batch"]) == (96, 5e-4, 1024)
