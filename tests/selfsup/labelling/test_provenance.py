"""Which labels an encoder had seen before it was given."""

import shutil
from pathlib import Path

import pytest
import torch

from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.data.label_table import LabelTable, read_table
from cluster_jobs.data.shards import Shards
from selfsup import features
from selfsup.encoders.loading import save_encoder
from selfsup.encoders.resnet import build_encoder
from selfsup.label import main
from selfsup.labelling.provenance import labels_seen_by
from tests.selfsup.toy_shards import make_shards

TINY = ("classifier.steps=2", "classifier.width=4", "classifier.batch=4", "classifier.rotation_weight=0")


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return make_shards(tmp_path / "data", (12,), [0, 1, 2] * 4)


def label(shards: Shards, out: Path, method: str, *words: str) -> LabelTable:
    assert main([f"data={shards.directory}", f"method={method}", f"out={out}", "threads=1", *words]) == 0
    return read_table(out)


@pytest.fixture
def classifier(shards: Shards, tmp_path: Path) -> Path:
    label(shards, tmp_path / "budget.parquet", "reveal", "fraction=1")
    label(shards, tmp_path / "v1.0" / "all.b.parquet", "classifier", f"labels={tmp_path}/budget.parquet", *TINY)
    return tmp_path / "v1.0" / "all.b.classifier.safetensors"


def described(table: Path) -> dict:
    return read_table(table).metadata | {"path": str(table)}


def test_a_classifier_saw_the_labels_of_its_table_also_through_its_features(
    shards: Shards, classifier: Path, tmp_path: Path
) -> None:
    expected = described(tmp_path / "v1.0" / "all.b.parquet")
    assert expected["encoder_table"] is None and labels_seen_by(str(classifier)) == expected
    table = tmp_path / "features.npy"
    assert features.main([f"data={shards.directory}", f"encoder={classifier}", f"out={table}", "threads=1"]) == 0
    assert labels_seen_by(str(table)) == expected
    facts = read_json(table.with_suffix(".json"))
    write_json(table.with_suffix(".json"), {name: facts[name] for name in ("fingerprint", "count", "encoder")})
    assert labels_seen_by(str(table)) == {}  # a table of an earlier version


def test_what_saw_no_label_is_none_and_what_nobody_knows_is_empty(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    save_encoder(tmp_path / "run" / "encoder.safetensors", build_encoder("resnet8", 1, 4))
    for encoder in ("", f"{tmp_path}/run", f"{tmp_path}/run/encoder.safetensors"):
        assert labels_seen_by(encoder) is None
    torch.jit.trace(torch.nn.Flatten(), torch.zeros(2, 1, 8, 8)).save(tmp_path / "mine.pt")
    (tmp_path / "moved").mkdir()
    shutil.copy(classifier, tmp_path / "moved" / "classifier.safetensors")
    for encoder in ("mine.pt", "moved", "moved/classifier.safetensors"):
        assert labels_seen_by(f"{tmp_path}/{encoder}") == {}


@pytest.mark.parametrize("words", [("kmeans", "clusters=2"), ("classifier", *TINY, "labels=BUDGET")])
def test_a_table_says_which_labels_its_encoder_had_seen(
    shards: Shards, classifier: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    method, *keys = (word.replace("BUDGET", f"{tmp_path}/budget.parquet") for word in words)
    table = label(shards, tmp_path / "second.parquet", method, *keys, f"encoder={classifier}")
    assert table.metadata["encoder_table"] == described(tmp_path / "v1.0" / "all.b.parquet")
