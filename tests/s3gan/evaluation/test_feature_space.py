import numpy as np
import pytest
import torch

from cluster_jobs.cli.config import CommandKeys
from cluster_jobs.distributed.job import Job
from s3gan.evaluation import feature_space
from s3gan.evaluation.feature_space import Evaluation, FeatureSpace
from s3gan.metrics.detector import Detector, Protocol
from s3gan.metrics.labelled import choose, from_arrays
from selfsup.labelling.classifier import ClassifierRecipe
from tests.selfsup.toy_shards import make_shards

PROTOCOL = Protocol("encoder", "e" * 64, "means of the rows")


@pytest.fixture
def open_space(tmp_path):
    train = make_shards(tmp_path / "train", [20, 25], [number % 3 for number in range(45)])
    test = make_shards(tmp_path / "test", [12], [number % 3 for number in range(12)])
    recipe, cache = ClassifierRecipe(), tmp_path / "cache"
    evaluation = Evaluation(train, test, ["a", "b", "c"], recipe, 0, cache, Job.open(CommandKeys(threads=1)))
    judge = Detector(PROTOCOL, lambda images: images.float().mean((1, 3)))

    def make(searched=0, reference="test"):
        return FeatureSpace(evaluation, lambda: judge, count=9, reference=reference, searched=searched)

    return make


@pytest.fixture
def extractions(monkeypatch):
    """Names of the sets whose features are computed, in their order."""
    calls = []
    for name in ("features_of_shards", "features_of_pictures"):
        original = getattr(feature_space, name)
        monkeypatch.setattr(feature_space, name, lambda *a, n=name, o=original, **k: (calls.append(n), o(*a, **k))[1])
    return calls


def images(seed, n=30):
    pictures = np.random.RandomState(seed).randint(0, 255, (n, 1, 8, 8)).astype(np.uint8)
    return from_arrays(pictures, np.zeros(n, np.int64))


def test_part_of_a_split_is_taken_from_all_of_it_where_that_is_wanted_anyway(open_space, extractions):
    alone, beside = open_space().floor(10), open_space(searched=50)
    np.testing.assert_allclose(beside.floor(10).values, alone.values, rtol=1e-6)
    assert len(beside.real("train", 50)) == 45 and extractions == ["features_of_shards"] * 2
    fewer = open_space(searched=40)  # not all of the 45 training images: the floor is a choice of its own
    np.testing.assert_array_equal(fewer.floor(10).values, alone.values)


def test_features_of_real_images_and_of_a_draw_are_computed_once(open_space, extractions):
    space = open_space()
    first, second = images(0), images(1)
    for _ in range(2):
        assert len(space.reference) == 12 and len(space.samples(first)) == 9
    assert extractions == ["features_of_shards", "features_of_pictures"]
    space.samples(second)
    assert extractions[2:] == ["features_of_pictures"]


def test_the_scored_images_are_a_keyed_choice_with_their_own_features(open_space):
    space, drawn = open_space(), images(0)
    assert space.scored(drawn).tolist() == choose(30, 9, 0).tolist()
    expected = torch.from_numpy(drawn.images[space.scored(drawn)]).float().mean((1, 3))
    np.testing.assert_allclose(space.samples(drawn).values, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize(("reference", "floor"), [("test", "train"), ("train", "test")])
def test_the_floor_is_of_the_other_split(open_space, reference, floor):
    space = open_space(reference=reference)
    assert (space.reference.source["split"], space.floor(5).source["split"]) == (reference, floor)


def test_what_does_not_depend_on_the_samples_is_made_once(open_space):
    space, made = open_space(), []
    assert [space.once("key", lambda: made.append(1) or 7) for _ in range(2)] == [7, 7] and made == [1]
