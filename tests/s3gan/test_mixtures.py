"""The choice of a mixture: folds, what is held out, rows that are not judged; test images have no part in it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster_jobs import mix
from cluster_jobs.core.errors import UserError
from cluster_jobs.data.label_table import read_table
from cluster_jobs.data.shards import Shards
from s3gan import mixtures
from s3gan.mixture_study.scorer import Mixture, deal
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


BUDGET, INFERRED, SET_APART = range(12), range(12, 60), range(6, 30)
SHARES = {"budget": (1, 0, 0), "with_gan": (0.5, 0.5, 0), "with_refined": (0.5, 0, 0.5)}


@pytest.fixture
def study(tmp_path: Path) -> list[str]:
    labels = [i % 3 for i in range(60)]
    bright = pictures(0, 60) // 4 + np.array(labels, np.uint8)[:, None, None, None] * 80  # a class is a brightness
    for split in ("train", "test"):
        write(tmp_path / "data" / split, bright, labels, CLASSES, pool=False)
    train = Shards(tmp_path / "data" / "train")
    budget = write_budget(tmp_path / "budget.parquet", train, {i: labels[i] for i in BUDGET}, {})
    inferred = {i: labels[i] for i in INFERRED}
    table = write_budget(tmp_path / "inferred.parquet", train, {i: labels[i] for i in BUDGET}, inferred)
    write_budget(tmp_path / "apart.parquet", train, {i: labels[i] for i in SET_APART}, {})
    makers = {
        "gan": {"made_by": "s3gan.generate", "label_table": read_table(table).metadata | {"path": table}},
        "refined": {"made_by": "simgan.refine", "label_table": None},
    }
    for seed, (name, pool) in enumerate(makers.items()):
        write(tmp_path / name, pictures(9 + seed, 60), labels, CLASSES)  # noise: teaches nothing
        (tmp_path / name / "pool.json").write_text(json.dumps(pool))
    sources = [f"real={tmp_path}/data/train", f"labels={budget}", f"gan={tmp_path}/gan", f"refined={tmp_path}/refined"]
    for row, shares in SHARES.items():
        asked = [f"share_{name}={share}" for name, share in zip(("real", "gan", "refined"), shares, strict=True)]
        for seed in (0, 1):
            words = [*sources, *asked, "repeat=9", "count=24", "workers=0", f"seed={seed}"]
            assert mix.main([*words, f"out={tmp_path}/mixes/{row}/{seed}"]) == 0
    words = [f"mixes={tmp_path}/mixes", f"data={tmp_path}/data", f"budget={budget}", f"out={tmp_path}/out", "threads=1"]
    return [*words, "classifier.steps=30", "classifier.batch=12", "classifier.width=4", "classifier.shift=0"]


def run(words: list[str], out: Path) -> dict[str, Any]:
    assert mixtures.main([*words, f"out={out}"]) == 0
    return json.loads((out / "mixtures.json").read_text())


def test_a_fold_takes_its_images_out_of_the_mixture_with_all_their_repeats(study: list[str], tmp_path: Path) -> None:
    train = Shards(tmp_path / "data" / "train")
    mixture = Mixture(tmp_path / "mixes" / "budget" / "0", train, CLASSES)
    gone = np.zeros(60, bool)
    gone[[0, 4]] = True
    places = np.array([train.keys().index((mixture.shards.annotation(i) or {})["key"]) for i in range(24)])
    assert np.array_equal(mixture.real, places)
    assert len(mixture.without(gone)) == int((~np.isin(places, [0, 4])).sum()) == 20


def test_shards_that_do_not_say_what_made_them_are_no_mixture(study: list[str], tmp_path: Path) -> None:
    (tmp_path / "mixes" / "budget" / "0" / "pool.json").unlink()
    with pytest.raises(UserError, match=r"holds no pool.json: expected a pool of cluster_jobs.mix"):
        Mixture(tmp_path / "mixes" / "budget" / "0", Shards(tmp_path / "data" / "train"), CLASSES)


@pytest.mark.slow
def test_the_choice_is_by_the_budget_and_test_labels_do_not_change_it(study: list[str], tmp_path: Path) -> None:
    first = run(study, tmp_path / "out")
    assert first["folds"] == 3 and set(first["rows"]) == set(SHARES)
    judged = [row for row, found in first["rows"].items() if found["held_out_mean"] is not None]
    assert judged == ["budget", "with_refined"]  # the GAN saw the whole budget
    assert first["chosen"] == max(judged, key=lambda row: first["rows"][row]["held_out_mean"])
    assert all("held_out" not in found for found in first["rows"]["with_gan"]["seeds"].values())
    assert first["rows"]["budget"]["verdict"] == "reference"
    for split in ("train", "test"):  # hidden labels
        file = tmp_path / "data" / split / "labels.bin"
        file.write_bytes(np.random.default_rng(1).permutation(np.fromfile(file, "<i4")).tobytes())
    second = run(study, tmp_path / "again")
    assert second["chosen"] == first["chosen"]
    for row, found in first["rows"].items():
        assert second["rows"][row]["held_out_mean"] == found["held_out_mean"]
    assert second["rows"]["budget"]["test"] != first["rows"]["budget"]["test"]


@pytest.mark.slow
def test_labels_set_apart_judge_a_row_with_a_gan_too(study: list[str], tmp_path: Path) -> None:
    found = run([*study, f"validation={tmp_path}/apart.parquet"], tmp_path / "out")
    assert found["validation"] and found["folds"] == 1 and found["budget"] == 12
    assert found["held_out"] == len(set(SET_APART) - set(BUDGET))
    means = {row: entry["held_out_mean"] for row, entry in found["rows"].items()}
    assert found["chosen"] == max(means, key=means.__getitem__)
    # train and test hold the same pictures here: the same classifier on the labels set apart alone, and on all
    right = [round(entry["held_out"] * 18) for entry in found["rows"]["budget"]["seeds"].values()]
    total = [round(entry["test"] * 60) for entry in found["rows"]["budget"]["seeds"].values()]
    assert all(r <= t <= r + 42 for r, t in zip(right, total, strict=True))
    assert len(list((tmp_path / "out" / "cache").glob("*.safetensors"))) == 6  # one of each mixture, for both


def test_labels_set_apart_must_be_others_than_the_budget(study: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    budget = next(word for word in study if word.startswith("budget="))
    assert mixtures.main([*study, budget.replace("budget=", "validation=", 1)]) == 2
    error = capsys.readouterr().err
    assert "validation=" in error and error.count("\n") == 1


def test_a_reference_that_is_not_there_is_one_line(study: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert mixtures.main([*study, "reference=none"]) == 2
    error = capsys.readouterr().err
    assert "budget, with_gan, with_refined" in error and error.count("\n") == 1
