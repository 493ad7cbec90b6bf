"""The whole line as real commands: what labels may steer, where files may lie, and what every command refuses."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cluster_jobs.core.files import read_json
from cluster_jobs.data.label_table import aligned_labels, read_table
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.run import load_run
from tests.processes import Ended, fork, fork_ranks, launch

HOSTILE = "ré sults=1 'a' \"b\" [c],{d} ${e}"


def run(log: Path, module: str, *words: str) -> Ended:
    ended = fork(log / f"{module}.log", module, *words)
    assert ended.code == 0, ended.output
    return ended


def permute_hidden_labels(source: Path, budget: set[str], target: Path) -> None:
    """Copies shards; every sample outside the budget gets the label of another one, and the fingerprint stays."""
    shards = Shards(source)
    labels = np.array(shards.hidden_labels())
    hidden = np.array([index for index in range(len(shards)) if shards.key(index) not in budget])
    labels[hidden] = np.roll(labels[hidden], 1)
    assert (labels != shards.hidden_labels()).sum() > len(shards) / 2
    start = 0
    for number, count in enumerate(shards.shard_counts.tolist()):
        samples = [
            Sample(shards.key(index).partition("/")[2], shards.encoded(index), "png", int(labels[index]))
            for index in range(start, start + count)
        ]
        write_shard(target, number, [dataclasses.replace(sample) for sample in samples])
        start += count
    facts = {"classes": shards.classes, "size": shards.size, "mode": shards.index["mode"]}
    finish_index(target, len(shards.shard_counts), **facts)
    assert Shards(target).fingerprint == shards.fingerprint


def labels_gan_and_pool(data: Path, budget: Path, encoder: Path, out: Path) -> dict[str, bytes]:
    """The bytes of the inferred table, the trained weights and the pool that come of ``data`` and the budget."""
    out.mkdir()
    few = ["classifier.steps=6", "classifier.batch=8", "classifier.rotation_batch=4"]
    words = [f"data={data}", "method=classifier", f"labels={budget}", f"encoder={encoder}", *few]
    run(out, "selfsup.label", *words, f"out={out}/inferred.parquet")
    sizes = [
        "network=biggan_light",
        "method=s3gan",
        "width=4",
        "batch=16",
        "total_nimg=96",
        "checkpoint_nimg=32",
        "sample_nimg=96",
    ]
    run(out, "s3gan.train", f"data={data}", f"labels={out}/inferred.parquet", *sizes, f"run.dir={out}/gan")
    run(out, "s3gan.generate", f"run={out}/gan", "count=30", f"out={out}/pool")
    run(out, "s3gan.generate", f"run={out}/gan", "count=30", "keep_score=0.5", "calibration=20", f"out={out}/best")
    weights = sorted((out / "gan" / "checkpoints").glob("*.safetensors"))[-1]
    return {
        "table": (out / "inferred.parquet").read_bytes(),
        "weights": weights.read_bytes(),
        "pool": (out / "pool" / "000000.tar").read_bytes(),
        "filtered pool": (out / "best" / "000000.tar").read_bytes(),
    }


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits and a budget, in a directory whose name needs quoting everywhere."""
    root = tmp_path_factory.mktemp("line") / HOSTILE
    root.mkdir()
    run(root, "cluster_jobs.pack", "source=digits", f"out={root}/digits")
    revealed = ["method=reveal", "fraction=0.1", f"out={root}/budget.parquet"]
    run(root, "selfsup.label", f"data={root}/digits/train", *revealed)
    return root


@pytest.fixture(scope="module")
def line(packed: Path) -> Path:
    """The same with an encoder."""
    sizes = ["width=4", "batch=16", "total_nimg=64", "checkpoint_nimg=32", "eval_count=16"]
    run(packed, "selfsup.pretrain", f"data={packed}/digits/train", "task=rotation", *sizes, f"run.dir={packed}/encoder")
    return packed


@pytest.mark.cluster
def test_permuting_hidden_labels_leaves_labels_weights_and_pool_bit_identical(line: Path, tmp_path: Path) -> None:
    budget, encoder = line / "budget.parquet", line / "encoder"
    permute_hidden_labels(line / "digits" / "train", set(read_table(budget).keys), tmp_path / "permuted")
    honest = labels_gan_and_pool(line / "digits" / "train", budget, encoder, tmp_path / "honest")
    permuted = labels_gan_and_pool(tmp_path / "permuted", budget, encoder, tmp_path / "other")
    assert {name for name in honest if honest[name] != permuted[name]} == set()


@pytest.mark.cluster
def test_every_command_works_in_a_directory_with_a_hostile_name(line: Path) -> None:
    data, synthetic = line / "digits", line / "printed"
    few = ["classifier.steps=4", "classifier.batch=8", "classifier.width=4"]
    clusters = ["method=kmeans", "clusters=5", f"encoder={line}/encoder", f"out={line}/clusters.parquet"]
    gan = [
        "network=biggan_light",
        "method=clustering_ss",
        "width=4",
        "batch=16",
        "total_nimg=64",
        f"run.dir={line}/gan",
    ]
    run(line, "selfsup.features", f"data={data}/test", f"encoder={line}/encoder", f"out={line}/features.npy")
    run(line, "selfsup.label", f"data={data}/train", *clusters)
    run(line, "s3gan.train", f"data={data}/train", f"labels={line}/clusters.parquet", *gan)
    run(line, "s3gan.generate", f"run={line}/gan", "count=20", f"out={line}/pool")
    run(line, "s3gan.evaluate", f"pool={line}/pool", f"data={data}", f"budget={line}/budget.parquet", *few)
    run(line, "simgan.pack", "source=printed_digits", "count=40", f"out={synthetic}")
    small = ["width=4", "blocks=1", "batch=8", "total_nimg=64", "warm_refiner_nimg=16", "warm_discriminator_nimg=16"]
    domains = [f"synthetic={synthetic}/train", f"real={data}/train"]
    run(line, "simgan.train", "task=digits", *domains, *small, "history=16", f"run.dir={line}/refiner")
    run(line, "simgan.refine", f"run={line}/refiner", f"synthetic={synthetic}/train", f"out={line}/refined")
    scored = [f"run={line}/refiner", f"synthetic={synthetic}", f"real={data}", *few]
    run(line, "simgan.evaluate", "task=digits", *scored)
    run(line, "cluster_jobs.report", f"root={line}")
    assert "</html>" in (line / "report.html").read_text()
    assert len(Shards(line / "pool")) == 20 and len(Shards(line / "refined")) == Shards(synthetic / "train").count


@pytest.mark.cluster
def test_probabilities_of_the_classifier_are_labels_where_it_is_sure(line: Path, tmp_path: Path) -> None:
    data = line / "digits" / "train"
    few = ["classifier.steps=60", "classifier.batch=16", "classifier.width=8", "classifier.rotation_batch=4"]
    words = [f"data={data}", "method=classifier", f"labels={line}/budget.parquet", "soft=true", *few]
    run(tmp_path, "selfsup.label", *words, f"out={tmp_path}/inferred.parquet")
    table = read_table(tmp_path / "inferred.parquet")
    bar = float(np.median(table.confidence[table.origin == "inferred"]))
    sizes = ["network=biggan_light", "width=4", "batch=16", "total_nimg=64", f"run.dir={tmp_path}/gan"]
    asked = ["label_softness=1", f"min_confidence={bar}"]
    run(tmp_path, "s3gan.train", f"data={data}", f"labels={tmp_path}/inferred.parquet", "method=s3gan", *sizes, *asked)
    sure, count = table.confidence >= bar, len(table)
    written = np.fromfile(tmp_path / "gan" / "probabilities.f16", np.float16).reshape(count, 10)
    assert len(Shards(data)) == count and sure.sum() < 0.7 * count
    assert table.probabilities is not None and (table.probabilities[sure].max(1) < 0.99).any()
    np.testing.assert_allclose(written[sure], table.probabilities[sure], atol=1e-3)
    assert not written[~sure].any()
    assert np.array_equal(np.fromfile(tmp_path / "gan" / "labels.i32", np.int32) >= 0, sure)
    weights = load_run(tmp_path / "gan")[1]["generator_ema"]
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


@pytest.mark.cluster
def test_a_pool_has_the_clusters_that_the_discriminator_ended_with(line: Path, tmp_path: Path) -> None:
    data = line / "digits"
    sizes = ["network=biggan_light", "width=4", "batch=16", "total_nimg=96", "recluster_nimg=32", "d_lr=0.001"]
    chosen = ["method=self_conditioned", "classes=12", "recluster_count=500", f"run.dir={tmp_path}/gan"]
    run(tmp_path, "s3gan.train", f"data={data}/train", *chosen, *sizes)
    run(tmp_path, "s3gan.generate", f"run={tmp_path}/gan", "count=200", "balance=table", f"out={tmp_path}/pool")
    clusters = np.fromfile(tmp_path / "gan" / "clusters" / "000000000064.i32", np.int32)
    shares = np.bincount(clusters, minlength=12) / len(clusters)
    pool = read_json(tmp_path / "pool" / "pool.json")
    assert np.abs(np.array(list(pool["counts"].values())) - 200 * shares).max() < 1
    few = ["classifier.steps=4", "classifier.batch=8", "classifier.width=4"]
    scored = [f"data={data}", f"budget={line}/budget.parquet", *few]
    run(tmp_path, "s3gan.evaluate", f"pool={tmp_path}/pool", *scored)
    shards = Shards(data / "train")
    budget = aligned_labels(read_table(line / "budget.parquet"), shards)
    voted = sum((clusters[budget >= 0] == number).any() for number in range(12))  # clusters with a label in them
    cas = read_json(tmp_path / "pool" / "evaluation" / "scores.json")["cas"]["results"]
    assert cas["pool"]["dropped_classes"] == 12 - voted and 0 <= cas["pool"]["accuracy"] <= 1


@pytest.mark.cluster
def test_two_ranks_train_and_pool_the_whole_line(line: Path, tmp_path: Path) -> None:
    words = [
        f"data={line}/digits/train",
        "method=single_label",
        "network=biggan_light",
        "width=4",
        "batch=16",
        "total_nimg=64",
    ]
    for module, arguments in {
        "s3gan.train": [*words, f"run.dir={tmp_path}/gan"],
        "s3gan.generate": [f"run={tmp_path}/gan", "count=30", f"out={tmp_path}/pool"],
    }.items():
        for rank in fork_ranks(tmp_path / f"{module}.log", module, *arguments):
            assert rank.code == 0, rank.output
    assert len(Shards(tmp_path / "pool")) == 30


BAD = {
    "an unknown key": ("s3gan.train", ["data={data}/train", "methud=s3gan", "run.dir={out}"], "methud"),
    "a wrong value": ("s3gan.train", ["data={data}/train", "method=s4gan", "run.dir={out}"], "s4gan"),
    "a missing directory": (
        "selfsup.pretrain",
        ["data={out}/no", "task=rotation", "run.dir={out}/r"],
        "does not exist",
    ),
    "an empty directory": ("selfsup.pretrain", ["data={empty}", "task=rotation", "run.dir={out}/r"], "index.json"),
    "a fraction of 0": (
        "selfsup.label",
        ["data={data}/train", "method=reveal", "fraction=0", "out={out}.parquet"],
        "0",
    ),
    "a fraction of 1.5": (
        "selfsup.label",
        ["data={data}/train", "method=reveal", "fraction=1.5", "out={out}.parquet"],
        "1.5",
    ),
    "the label table of other data": (
        "s3gan.train",
        ["data={data}/test", "labels={budget}", "method=s3gan", "run.dir={out}"],
        "budget.parquet",
    ),
    "a budget given to a method that wants every label": (
        "s3gan.train",
        ["data={data}/train", "labels={budget}", "method=supervised", "run.dir={out}"],
        "supervised",
    ),
    "a pool of no run": ("s3gan.generate", ["run={empty}", "count=3", "out={out}"], "run"),
    "a task that does not exist": (
        "simgan.train",
        ["task=gauze", "synthetic={data}/train", "real={data}/train", "run.dir={out}"],
        "gauze",
    ),
}


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.replace(" ", "_"))
def test_bad_input_is_one_line_and_exit_code_2_and_leaves_nothing(case: str, packed: Path, tmp_path: Path) -> None:
    module, words, named = BAD[case]
    (tmp_path / "empty").mkdir()
    places = {"data": packed / "digits", "budget": packed / "budget.parquet", "out": tmp_path / "out"}
    filled = [word.format(**places, empty=tmp_path / "empty") for word in words]
    ended = fork(tmp_path / "log", module, *filled)
    errors = [text for text in ended.output.splitlines() if "error:" in text]
    assert ended.code == 2 and len(errors) == 1 and named in errors[0], ended.output
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "log"}


@pytest.mark.slow
def test_the_launcher_turns_bad_input_into_a_failure_that_the_exit_record_explains(tmp_path: Path) -> None:
    record = tmp_path / "exit.json"
    words = [f"data={tmp_path}/nowhere", "task=rotation", f"run.dir={tmp_path}/run"]
    ended = launch("selfsup.pretrain", *words, processes=2, env={"CLUSTER_JOBS_EXIT_FILE": str(record)})
    assert ended.code != 0 and ended.output.count("error: data directory") == 1
    assert '"code": 2' in record.read_text() and "does not exist" in record.read_text()
