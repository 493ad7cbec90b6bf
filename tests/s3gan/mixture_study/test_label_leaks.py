"""Which held-out labels the sources of a mixture saw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster_jobs.data.label_table import read_table
from cluster_jobs.data.shards import Shards
from s3gan.mixture_study.label_leaks import leak
from selfsup.encoders.loading import weights_digest
from selfsup.encoders.resnet import build_encoder
from selfsup.labelling.classifier import Classifier, classifier_path, save_classifier
from tests.cluster_jobs.test_mix import CLASSES, pictures, write, write_budget

BUDGET, OTHERS = range(12), range(12, 60)


@pytest.fixture
def train(tmp_path: Path) -> Shards:
    write(tmp_path / "train", pictures(0, 60), [0, 1, 2] * 20, CLASSES, pool=False)
    return Shards(tmp_path / "train")


@pytest.fixture
def gan(train: Shards, tmp_path: Path) -> dict[str, Any]:
    """pool.json of a GAN whose labels were inferred from the budget's."""
    table = tmp_path / "inferred.parquet"
    write_budget(table, train, dict.fromkeys(BUDGET, 0), dict.fromkeys(OTHERS, 1))
    return {"made_by": "s3gan.generate", "label_table": read_table(table).metadata | {"path": str(table)}}


def behind(path: Path, train: Shards, true: dict[int, int], encoder_table: dict[str, Any]) -> dict[str, Any]:
    """A table with these true labels whose classifier began from the one of another table; metadata and path."""
    metadata = {"encoder": "0a1b", "encoder_table": encoder_table}
    write_budget(path, train, true, dict.fromkeys(range(50, 60), 1), metadata)
    return read_table(path).metadata | {"path": str(path)}


def found(train: Shards, judged: range, **pools: dict[str, Any]) -> str:
    sources: dict[str, Any] = {"real": {}} | {name: {"pool": pool} for name, pool in pools.items()}
    return leak({"sources": sources}, train, np.isin(np.arange(60), judged))


def test_a_gan_saw_the_true_labels_of_its_table_and_no_inferred_one(train: Shards, gan: dict[str, Any]) -> None:
    assert found(train, range(6, 30), gan=gan) == "gan: made with 6 of the 24 held-out labels"
    assert found(train, BUDGET, gan=gan) == "gan: made with 12 of the 12 held-out labels"
    assert found(train, OTHERS, gan=gan) == ""


def test_a_gan_that_began_from_another_run_may_have_seen_anything(train: Shards, gan: dict[str, Any]) -> None:
    reason = "gan: which labels the run saw that its GAN began from is not known"
    assert found(train, OTHERS, gan=gan | {"init_from": "runs/older"}) == reason
    assert found(train, OTHERS, gan=gan | {"init_from": None}) == ""


def test_real_images_and_refined_ones_leak_nothing(train: Shards) -> None:
    assert found(train, BUDGET) == found(train, BUDGET, refined={"made_by": "simgan.refine"}) == ""


def test_refined_images_leak_what_went_into_them_besides_simulated_ones(train: Shards, gan: dict[str, Any]) -> None:
    refined = {"made_by": "simgan.refine", "network": {"psi_encoder": None}, "synthetic_pool": gan}
    assert found(train, range(6, 30), refined=refined) == "refined: made with 6 of the 24 held-out labels"
    assert found(train, OTHERS, refined=refined) == ""
    twice = {"made_by": "simgan.refine", "synthetic_pool": refined}
    assert "made with 12 of the 12" in found(train, BUDGET, refined=twice)
    guided = {"made_by": "simgan.refine", "network": {"psi_encoder": "0a1b"}, "synthetic_pool": None}
    assert "encoder of its ψ" in found(train, OTHERS, refined=guided)


def changed(gan: dict[str, Any]) -> None:
    gan["label_table"]["fraction"] = 0.5


def gone(gan: dict[str, Any]) -> None:
    Path(gan["label_table"]["path"]).unlink()


def filtered(gan: dict[str, Any]) -> None:
    gan["filter"] = {"agree": {"classifier": {"sha256": "that of another"}}}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (changed, "another one now"),
        (gone, "no such file"),
        (filtered, "filter"),
        (lambda gan: gan.update(label_table=None), "not known"),
        (lambda gan: gan.update(made_by="cluster_jobs.mix", label_table=None), "not known"),
    ],
)
def test_what_is_not_known_counts_as_seen(
    train: Shards, gan: dict[str, Any], spoil: Callable[[dict[str, Any]], None], reason: str
) -> None:
    assert found(train, OTHERS, gan=gan) == ""
    spoil(gan)
    assert reason in found(train, OTHERS, gan=gan)


def test_a_gan_saw_what_the_classifiers_before_the_one_of_its_table_saw(train: Shards, tmp_path: Path) -> None:
    """A table from 12 labels, by a classifier that began from clusters' features of one that saw 6 others."""
    path = tmp_path / "first.parquet"
    write_budget(path, train, dict.fromkeys(range(20, 26), 0), {})
    first = read_table(path).metadata | {"path": str(path)}
    second = behind(tmp_path / "second.parquet", train, {}, first)
    gan = {"made_by": "s3gan.generate"}
    gan["label_table"] = behind(tmp_path / "third.parquet", train, dict.fromkeys(BUDGET, 0), second)
    assert found(train, range(30, 60), gan=gan) == ""
    reason = "the encoder behind third.parquet: the encoder behind second.parquet: made with 6 of the 40 held-out"
    assert reason in found(train, range(20, 60), gan=gan)
    write_budget(path, train, dict.fromkeys(range(20, 26), 0), {}, {"fraction": 0.5})
    assert "first.parquet' is another one now" in found(train, range(30, 60), gan=gan)
    path.unlink()
    assert "no such file" in found(train, range(30, 60), gan=gan)


@pytest.mark.parametrize(
    ("behind_it", "reason"),
    [
        ({"encoder_table": None}, ""),
        ({"encoder_table": {}}, "gan: the encoder behind own.parquet: which labels made it is not known"),
        ({}, "gan: the encoder behind own.parquet: which labels made it is not known"),
    ],
)
def test_an_encoder_of_unknown_origin_counts_as_having_seen_all(
    train: Shards, tmp_path: Path, behind_it: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "own.parquet"
    write_budget(path, train, dict.fromkeys(BUDGET, 0), {}, {"encoder": "0a1b", **behind_it})
    pool = {"made_by": "s3gan.generate", "label_table": read_table(path).metadata | {"path": str(path)}}
    assert found(train, OTHERS, gan=pool) == reason


def test_a_filter_by_the_classifier_that_inferred_the_labels_saw_nothing_more(
    train: Shards, gan: dict[str, Any]
) -> None:
    classifier = Classifier(build_encoder("resnet8", 1, 4), 3)
    save_classifier(classifier_path(Path(gan["label_table"]["path"])), classifier)
    gan["filter"] = {"agree": {"classifier": {"sha256": weights_digest(classifier)}}}
    assert found(train, OTHERS, gan=gan) == ""
    filtered(gan)
    assert "filter" in found(train, OTHERS, gan=gan)
