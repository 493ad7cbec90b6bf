import numpy as np
import pytest

from s3gan.metrics import memorisation
from s3gan.metrics.detector import Features, Protocol
from s3gan.metrics.memorisation import nearest_training_score
from s3gan.metrics.trained import NotAvailable

PROTOCOL = Protocol("classifier", "d" * 64, "none")


def features(values, split="samples"):
    return Features(np.asarray(values, np.float32), PROTOCOL, {"split": split})


def draw(n, seed):
    return np.random.RandomState(seed).standard_normal((n, 3)).astype(np.float32)


TRAIN, TEST = features(draw(200, 0), "train"), features(draw(100, 1), "test")


def naive_ratio(samples):
    def median(side):
        between = np.sqrt(((side[:, None].astype(float) - TRAIN.values[None].astype(float)) ** 2).sum(-1))
        return np.median(between.min(1))

    return median(samples) / median(TEST.values)


def test_the_ratio_is_that_of_the_median_distances():
    samples = 1.5 * draw(80, 2)
    found = nearest_training_score(features(samples), TEST, TRAIN)
    assert found.value == pytest.approx(naive_ratio(samples), rel=1e-9)
    assert (found.name, found.samples, found.reference) == ("nn_ratio_classifier80", 80, 200)
    assert found.value == pytest.approx(found.details["sample_distance"] / found.details["test_distance"])


def test_unseen_images_score_about_one_and_copies_nothing():
    assert nearest_training_score(features(draw(100, 3)), TEST, TRAIN).value == pytest.approx(1, abs=0.2)
    found = nearest_training_score(features(TRAIN.values[:60]), TEST, TRAIN)
    assert found.value == 0 and all(row["ratio"] == 0 for row in found.details["shown"])


def test_the_closest_samples_are_shown_with_their_nearest_training_images():
    samples = draw(50, 2)
    samples[17] = TRAIN.values[123]  # one copy among them
    shown = nearest_training_score(features(samples), TEST, TRAIN).details["shown"]
    assert len(shown) == 10 and (shown[0]["sample"], shown[0]["train"][0], shown[0]["ratio"]) == (17, 123, 0)
    for row in shown:
        between = ((samples[row["sample"]].astype(float) - TRAIN.values.astype(float)) ** 2).sum(-1)
        assert row["train"] == np.argsort(between)[:5].tolist()
    closest, typical = [row["ratio"] for row in shown[:5]], [row["ratio"] for row in shown[5:]]
    assert closest == sorted(closest) and max(closest) <= min(typical)


def test_more_samples_than_are_looked_at_are_a_keyed_choice(monkeypatch):
    monkeypatch.setattr(memorisation, "QUERIES", 30)
    samples = features(draw(80, 2))
    first, again = (nearest_training_score(samples, TEST, TRAIN, seed=4) for _ in range(2))
    assert (first.samples, first.details["test"]) == (30, 30) and first == again
    assert nearest_training_score(samples, TEST, TRAIN, seed=5).value != first.value


def test_few_training_images_or_a_test_set_of_copies_make_it_not_available():
    with pytest.raises(NotAvailable, match="3 training images"):
        nearest_training_score(features(draw(9, 2)), TEST, TRAIN.rows(np.arange(3)))
    with pytest.raises(NotAvailable, match="copies of training images"):
        nearest_training_score(features(draw(9, 2)), features(TRAIN.values[:20], "test"), TRAIN)
