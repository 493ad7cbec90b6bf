"""The choice of a mixture: folds, what is held out, and that test images have no part in it."""

import json
from pathlib import Path

import numpy as np
import pytest

from cluster_jobs import mix
from cluster_jobs.shards import Shards
from s3gan import mixtures
from s3gan.mixture_scores import Mixture, deal
from tests.cluster_jobs.test_mix import CLASSES, pictures, write, write_budget


def test_folds_hold_every_budget_image_once_and_every_class_evenly() -> None:
    labels = np.array([0] * 7 + [-1] * 5 + [1] * 5)
    keys = [f"k{number}" for number in range(len(labels))]
    folds = deal(labels, keys, 3)
    assert (folds[labels < 0] == -1).all()
    assert sorted(np.bincount(folds[labels == 0]).tolist()) == [2, 2, 3]
    assert sorted(np.bincount(folds[labels == 1]).tolist()) == [1, 2, 2]
    assert deal(np.array([0, 0, 1, 1, 1]), keys[:5], 5).max() == 1  # no more folds than the smallest class has images
    with pytest.raises(Exception, match="expected 2 or more"):
        deal(np.array([0, 0, 1]), keys[:3], 3)


@pytest.fixture
def study(tmp_path: Path) -> list[str]:
    labels = [i % 3 for i in range(60)]
    bright = pictures(0, 60) // 4 + np.array(labels, np.uint8)[:, None, None, None] * 80  # a class is a brightness
    for split in ("train", "test"):
        write(tmp_path / "data" / split, bright, labels, CLASSES, pool=False)
    train = Shards(tmp_path / "data" / "train")
    budget = write_budget(tmp_path / "budget.parquet", train, {i: labels[i] for i in range(12)}, {})
    gan = write(tmp_path / "gan", pictures(9, 60), labels, CLASSES)  # noise: teaches nothing
    for row, share in (("budget", 1), ("half", 0.5)):
        for seed in (0, 1):
            words = [
                f"real={tmp_path}/data/train",
                f"labels={budget}",
                f"gan={gan}",
                "repeat=9",
                "count=24",
                "workers=0",
            ]
            words += [f"share_real={share}", f"share_gan={1 - share}", f"seed={seed}"]
            assert mix.main([*words, f"out={tmp_path}/mixes/{row}/{seed}"]) == 0
    words = [f"mixes={tmp_path}/mixes", f"data={tmp_path}/data", f"budget={budget}", f"out={tmp_path}/out", "threads=1"]
    return [*words, "classifier.steps=30", "classifier.batch=12", "classifier.width=4", "classifier.shift=0"]


def test_a_fold_takes_its_images_out_of_the_mixture_with_all_their_repeats(study: list[str], tmp_path: Path) -> None:
    train = Shards(tmp_path / "data" / "train")
    mixture = Mixture(tmp_path / "mixes" / "budget" / "0", train, CLASSES)
    gone = np.zeros(60, bool)
    gone[[0, 4]] = True
    places = np.array([train.keys().index((mixture.shards.annotation(i) or {})["key"]) for i in range(24)])
    assert np.array_equal(mixture.real, places)
    assert len(mixture.without(gone)) == int((~np.isin(places, [0, 4])).sum()) == 20


@pytest.mark.slow
def test_the_choice_is_by_the_budget_and_test_labels_do_not_change_it(study: list[str], tmp_path: Path) -> None:
    assert mixtures.main(study) == 0
    first = json.loads((tmp_path / "out" / "mixtures.json").read_text())
    assert first["folds"] == 3 and set(first["rows"]) == {"budget", "half"}
    assert first["chosen"] == max(first["rows"], key=lambda row: first["rows"][row]["budget_mean"])
    assert first["rows"]["budget"]["verdict"] == "reference"
    for split in ("train", "test"):  # hidden labels
        file = tmp_path / "data" / split / "labels.bin"
        file.write_bytes(np.random.default_rng(1).permutation(np.fromfile(file, "<i4")).tobytes())
    assert mixtures.main([*study, f"out={tmp_path}/again"]) == 0
    second = json.loads((tmp_path / "again" / "mixtures.json").read_text())
    assert second["chosen"] == first["chosen"]
    for row, found in first["rows"].items():
        assert second["rows"][row]["budget_mean"] == found["budget_mean"]
    assert second["rows"]["budget"]["test"] != first["rows"]["budget"]["test"]


def test_a_reference_that_is_not_there_is_one_line(study: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert mixtures.main([*study, "reference=none"]) == 2
    error = capsys.readouterr().err
    assert "budget, half" in error and error.count("\n") == 1
