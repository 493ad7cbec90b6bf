import numpy as np
import pytest
import torch

from cluster_jobs.cli.config import CommandKeys
from cluster_jobs.core.errors import UserError
from cluster_jobs.distributed.job import Job
from s3gan.metrics import detector, trained
from s3gan.metrics.trained import NotAvailable
from selfsup.labelling.classifier import ClassifierRecipe
from tests.selfsup.toy_shards import make_shards

RECIPE = ClassifierRecipe(width=4, steps=4, batch=16)


@pytest.fixture
def job():
    return Job.open(CommandKeys(threads=1))


@pytest.fixture
def real(tmp_path):
    return make_shards(tmp_path / "train", [20, 25], [number % 3 for number in range(45)])


def make(shards, job, cache, **changes):
    arguments = {"recipe": RECIPE, "seed": 0, **changes}
    return detector.make_detector(shards, cache=cache, job=job, **arguments)


def test_a_detector_is_trained_once_and_then_read_from_the_cache(real, job, tmp_path, monkeypatch):
    first = make(real, job, tmp_path / "cache")
    monkeypatch.setattr(trained, "fit", None)
    again = make(real, job, tmp_path / "cache")
    assert again.protocol == first.protocol
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    assert torch.equal(again.network(images), first.network(images))
    with pytest.raises(TypeError):  # another protocol is trained anew
        make(real, job, tmp_path / "cache", seed=1)


def test_other_labels_or_another_recipe_make_another_detector(real, job, tmp_path):
    hashes = {
        make(real, job, tmp_path / "cache").protocol.hash,
        make(real, job, tmp_path / "cache", seed=1).protocol.hash,
        make(real, job, tmp_path / "cache", recipe=ClassifierRecipe(width=4, steps=5, batch=16)).protocol.hash,
        make(make_shards(tmp_path / "other", [20, 25], [0] * 20 + [1] * 25), job, tmp_path / "cache").protocol.hash,
    }
    assert len(hashes) == 4


def test_the_detector_learns_only_from_samples_with_labels(job, tmp_path):
    shards = make_shards(tmp_path / "some", [9], [0, None, 1, None, 0, 1, None, 1, 0])
    assert len(detector.from_shards(shards, shards.hidden_labels())) == 6
    make(shards, job, tmp_path / "cache")
    for name, labels in (("none", [None] * 4), ("one", [2, None, 2, 2])):
        with pytest.raises(NotAvailable, match="needs 2"):
            make(make_shards(tmp_path / name, [4], labels), job, tmp_path / "cache")


def test_features_are_those_of_the_penultimate_layer_in_index_order(real, job, tmp_path, monkeypatch):
    monkeypatch.setattr(detector, "BLOCK", 8)  # 45 samples: the last block is padded
    judge = make(real, job, tmp_path / "cache")
    found = detector.features_of_shards(judge, real, split="train", count=0, seed=0, cache=tmp_path / "cache", job=job)
    images = torch.stack([torch.from_numpy(real.image(index)) for index in range(45)])
    train = detector.from_shards(real, real.hidden_labels())
    classifier = trained.trained_classifier(
        train, 3, RECIPE, seed=0, cache=tmp_path / "cache", job=job, what="detector"
    ).classifier
    expected = classifier.encoder(images.float() / 127.5 - 1)
    np.testing.assert_allclose(found.values, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_features_of_real_images_are_cached_by_detector_data_and_count(real, job, tmp_path, monkeypatch):
    judge = make(real, job, tmp_path / "cache")

    def features(count):
        return detector.features_of_shards(
            judge, real, split="train", count=count, seed=0, cache=tmp_path / "cache", job=job
        )

    first, few = features(0), features(10)
    assert (len(first.values), len(few.values)) == (45, 10)
    monkeypatch.setattr(detector, "extract", None)
    np.testing.assert_array_equal(features(0).values, first.values)
    np.testing.assert_array_equal(features(10).values, few.values)


def test_a_damaged_cache_is_named(real, job, tmp_path):
    make(real, job, tmp_path / "cache")
    file = next((tmp_path / "cache").glob("classifier-*.safetensors"))
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match=f"{file.name}: torn"):
        make(real, job, tmp_path / "cache")


def test_classes_without_a_name_are_called_by_their_number(tmp_path):
    shards = make_shards(tmp_path / "more", [4], [0, 4, None, 1], classes=["cat", "dog"])
    assert detector.class_names(shards) == ["cat", "dog", "2", "3", "4"]
