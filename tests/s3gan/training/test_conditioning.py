"""From label tables to the conditions of real images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cluster_jobs.data.label_table import read_table, write_table
from s3gan import train
from s3gan.training.conditioning import TrainingLabels
from tests.s3gan.toy_data import TINY, make_data, make_table

LABELS = np.array([2, -1, 0], np.int32)
PROBABILITIES = np.array([[0.25, 0.25, 0.5], [0, 0, 0], [1, 0, 0]], np.float16)


def test_without_a_table_everything_is_unlabelled() -> None:
    assert TrainingLabels(None).of(torch.tensor([5, 7])).tolist() == [-1, -1]


def test_hard_labels_are_looked_up_by_index() -> None:
    assert TrainingLabels(LABELS).of(torch.tensor([2, 1, 0, 0])).tolist() == [0, -1, 2, 2]


@pytest.mark.parametrize("softness", [0.3, 1.0])
def test_softness_blends_the_label_with_the_probabilities(softness: float) -> None:
    found = TrainingLabels(LABELS, PROBABILITIES, softness).of(torch.tensor([0, 1]))
    expected = [[0.25 * softness, 0.25 * softness, 1 - 0.5 * softness], [0, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def _run(tmp_path: Path, *keys: str, soft: bool = True, confidence: float = 1.0, others: float = 1.0) -> int:
    shards = make_data(tmp_path / "train")
    path = make_table(tmp_path / "table.parquet", shards, origin="inferred")
    table = read_table(path)
    table.confidence = np.where(np.arange(len(table)) < 20, confidence, others).astype(np.float32)
    if soft:
        table.probabilities = np.full((len(table), 3), 1 / 3, np.float32)
    write_table(path, table)
    words = [f"data={tmp_path / 'train'}", f"labels={path}", "method=s3gan", f"run.dir={tmp_path / 'run'}"]
    return train.main([*words, *TINY, "total_nimg=32", *keys])


def test_a_run_with_soft_labels_trains(tmp_path: Path) -> None:
    assert _run(tmp_path, "label_softness=0.5") == 0
    written = np.fromfile(tmp_path / "run" / "probabilities.f16", np.float16)
    np.testing.assert_allclose(written, 1 / 3, rtol=1e-3)


def test_soft_labels_need_probabilities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(tmp_path, "label_softness=0.5", soft=False) == 2
    assert "soft=true" in capsys.readouterr().err


def test_labels_below_the_confidence_asked_for_are_unknown(tmp_path: Path) -> None:
    assert _run(tmp_path, "min_confidence=0.6", confidence=0.5) == 0
    labels = np.fromfile(tmp_path / "run" / "labels.i32", np.int32)
    assert (labels[:20] == -1).all() and (labels[20:] >= 0).all()


def test_a_confidence_that_no_label_has_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(tmp_path, "min_confidence=0.9", confidence=0.5, others=0.8) == 2
    assert "min_confidence=0.9" in capsys.readouterr().err
