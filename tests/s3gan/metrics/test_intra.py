import numpy as np
import pytest

from cluster_jobs.core.errors import UserError
from s3gan.metrics.detector import Features, Protocol
from s3gan.metrics.frechet import FeatureStatistics, distance_between
from s3gan.metrics.intra import LabelledFeatures, intra_scores
from s3gan.metrics.trained import NotAvailable

PROTOCOL = Protocol("classifier", "d" * 64, "none")
NAMES = ["cat", "dog", "fish"]


def side(counts, what, split="samples", shift=0.0, seed=0, features=4, shuffled=True):
    """Features of so many images of each class; class c lies around 5 c, `shift` beside where it belongs."""
    random = np.random.RandomState(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = random.permutation(labels) if shuffled else labels
    values = random.standard_normal((len(labels), features)) + 5 * labels[:, None] + shift
    return LabelledFeatures(Features(values.astype(np.float32), PROTOCOL, {"split": split}), labels, what)


def of_class(one, number):
    return one.features.values[one.labels == number]


def test_the_score_is_the_mean_of_the_distances_of_the_classes():
    ours = side([30, 30, 30], "generated", shift=0.5)
    real = side([30, 30, 30], "real test", "test", seed=1)
    found = intra_scores(ours, real, None, NAMES)
    assert list(found) == ["intra_fd_classifier3x30"]
    score = found["intra_fd_classifier3x30"]
    expected = [
        distance_between(*(FeatureStatistics.of(of_class(one, number)) for one in (ours, real))) for number in range(3)
    ]
    assert score.details["per_class"] == pytest.approx(expected, rel=1e-9)
    assert score.value == pytest.approx(np.mean(expected), rel=1e-9)
    assert (score.samples, score.reference, score.details["class_count"], score.split) == (90, 90, 30, "test")


def test_images_of_the_wrong_class_are_seen_here_and_not_by_the_plain_distance():
    real, right = side([40, 40, 40], "real test", "test", seed=1), side([40, 40, 40], "generated")
    wrong = LabelledFeatures(right.features, (right.labels + 1) % 3, "generated")
    assert intra_scores(right, real, None, NAMES)["intra_fd_classifier3x40"].value < 2
    assert intra_scores(wrong, real, None, NAMES)["intra_fd_classifier3x40"].value > 50


def test_every_class_has_as_many_images_on_every_side_and_one_with_few_is_left_out():
    ours, real = side([60, 25, 7], "generated"), side([50, 50, 50], "real test", "test", seed=1)
    floor = side([30, 90, 80], "real train", "train", seed=2)
    found = intra_scores(ours, real, floor, NAMES)
    assert list(found) == ["intra_fd_classifier2x25", "floor_intra_fd_classifier2x25"]
    for score in found.values():
        assert score.details["per_class"][2] is None and None not in score.details["per_class"][:2]
        assert score.details["left_out"] == {"fish": "7 generated, 50 real test, 80 real train"}
    fixed = intra_scores(ours, real, floor, NAMES, count=28)["intra_fd_classifier1x28"]
    assert list(fixed.details["left_out"]) == ["dog", "fish"]


def test_unlabelled_images_are_of_no_class_and_a_floor_without_labels_is_none():
    ours, real = side([30, 30, 30], "generated"), side([30, 30, 30], "real test", "test", seed=1)
    some = np.where(np.arange(90) % 9 == 0, -1, real.labels)
    floor = LabelledFeatures(real.features, np.full(90, -1), "real train")
    [name] = intra_scores(ours, LabelledFeatures(real.features, some, "real test"), floor, NAMES)
    least = min((some == number).sum() for number in range(3))
    assert name == f"intra_fd_classifier3x{least}"


def test_few_images_in_all_classes_are_not_available_and_other_protocols_refused():
    ours, real = side([3, 4, 5], "generated"), side([30, 30, 30], "real test", "test", seed=1)
    with pytest.raises(NotAvailable, match=r"no class has 20 images on each side \(cat: 3 generated, 30 real test"):
        intra_scores(ours, real, None, NAMES)
    other = Protocol("classifier", "e" * 64, "none")
    foreign = LabelledFeatures(Features(real.features.values, other, real.features.source), real.labels, "real test")
    with pytest.raises(UserError, match="cannot be scored against"):
        intra_scores(ours, foreign, None, NAMES)


def test_the_choice_within_a_class_is_keyed():
    ours, real = side([60, 60, 60], "generated"), side([30, 30, 30], "real test", "test", seed=1)
    [first], [again], [other] = (
        [score.value for score in intra_scores(ours, real, None, NAMES, seed=seed).values()] for seed in (0, 0, 1)
    )
    assert first == again != other
