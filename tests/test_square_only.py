"""selfsup and s3gan take square pictures alone, and say so in one line before they write anything."""

from pathlib import Path

import pytest

from cluster_jobs.cli.config import Command
from s3gan import evaluate as s3gan_evaluate
from s3gan import train as s3gan_train
from selfsup import features, label, pretrain
from tests.cluster_jobs.tiny import write_tiny_shards


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Shards of pictures that are 8 pixels high and 12 wide, as DIR/train and DIR/test."""
    for split in ("train", "test"):
        write_tiny_shards(tmp_path / "wide" / split, size=(8, 12))
    return tmp_path / "wide"


def refused(command: Command, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    capsys.readouterr()
    assert command(words) == 2
    line = capsys.readouterr().err.strip()
    assert "8 × 12 pixels (height × width), expected square ones" in line and len(line.splitlines()) == 1


def test_pictures_that_are_not_square_are_refused(
    tmp_path: Path, wide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    refused(pretrain.main, capsys, "task=rotation", f"data={wide / 'train'}", f"run.dir={run}")
    labels = tmp_path / "any.parquet"
    refused(s3gan_train.main, capsys, f"data={wide / 'train'}", f"labels={labels}", f"run.dir={run}")
    assert not (run / "config.yaml").exists()
    refused(s3gan_evaluate.main, capsys, f"data={wide}", f"pool={wide / 'train'}")


def test_labels_of_pictures_that_are_not_square_are_revealed_but_not_inferred(
    tmp_path: Path, wide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, budget, inferred = (tmp_path / name for name in ("wide/train", "budget.parquet", "inferred.parquet"))
    assert label.main([f"data={data}", "method=reveal", "fraction=0.5", f"out={budget}"]) == 0
    refused(label.main, capsys, f"data={data}", "method=classifier", f"labels={budget}", f"out={inferred}")
    assert budget.is_file() and not inferred.is_file()


def test_features_of_pictures_that_are_not_square_are_refused(
    tmp_path: Path, wide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features.npy"
    refused(features.main, capsys, f"data={wide / 'train'}", f"encoder={tmp_path / 'any'}", f"out={out}")
    assert not out.exists()
