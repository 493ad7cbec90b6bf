import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from selfsup import probe
from selfsup.encoders.loading import save_encoder
from selfsup.encoders.resnet import build_encoder
from selfsup.probe import knn, linear, main
from tests.selfsup.toy_shards import make_shards


def clouds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of three overlapping classes."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, count)
    return (np.eye(3)[labels] @ draw.normal(size=(3, 5)) + draw.normal(size=(count, 5))).astype(np.float32), labels


@pytest.mark.parametrize("bank", [7, 1000])
def test_neighbours_vote_as_in_scikit_learn_in_chunks_or_at_once(bank: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "BANK", bank)
    monkeypatch.setattr(probe, "QUERIES", 9)
    (train, labels), (test, _) = clouds(60, 0), clouds(40, 1)
    reference = KNeighborsClassifier(5, metric="cosine", weights=lambda distance: np.exp(-distance / 0.07))
    expected = reference.fit(train, labels).predict(test)
    assert np.array_equal(knn(train, labels, test, 5, 0.07, "cpu"), expected)


def test_more_neighbours_than_samples_is_a_vote_of_all():
    train, labels = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32), np.array([2, 2, 0])
    assert knn(train, labels, np.array([[1, 0.1]], np.float32), 20, 0.07, "cpu").tolist() == [2]


def test_the_linear_probe_separates_what_a_plane_separates_whatever_the_scale():
    train = np.array([[0, 1e4], [0, 2e4], [1e-3, 1e4], [1e-3, 2e4]], np.float32)
    assert linear(train, np.array([0, 0, 1, 1]), train, 1.0).tolist() == [0, 0, 1, 1]


def shown(tmp_path: Path, labels: list[int | None]) -> dict:
    """What the command leaves for shards that show their label."""
    for split in ("train", "test"):
        make_shards(tmp_path / split, [len(labels)], labels)
    (tmp_path / "run").mkdir()
    save_encoder(tmp_path / "run" / "encoder.safetensors", build_encoder("resnet8", 1, 4))
    encoder = tmp_path / "run" / "encoder.safetensors"
    assert main([f"data={tmp_path}", f"encoder={encoder}", "neighbours=3", "threads=1"]) == 0
    section = json.loads((tmp_path / "run" / "report" / "probe.json").read_text())
    assert [row[1] for row in section["table"]["rows"]][1] == "k=3, cosine, T=0.07"
    return json.loads((tmp_path / "run" / "probe.json").read_text())


def test_the_command_scores_features_and_writes_the_protocol_beside_the_score(tmp_path: Path):
    found = shown(tmp_path, [0, 1, 2] * 6 + [None] * 2)
    assert found["scores"]["linear"] > 0.9  # even random features tell three shades of grey apart
    assert found["samples"] == {"train": 18, "test": 18}
    assert set(found["scores"]) == set(found["protocols"])


def test_a_score_without_labels_is_not_available(tmp_path: Path):
    assert shown(tmp_path, [None] * 5)["scores"] == {"linear": None, "knn": None}


def test_a_missing_split_is_one_line_and_exit_code_two(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main([f"data={tmp_path}", "encoder=x.safetensors"]) == 2
    assert "train" in capsys.readouterr().err
    assert main([f"data={tmp_path}", "encoder=x.safetensors", "neighbours=0"]) == 2
    assert "neighbours=0" in capsys.readouterr().err
