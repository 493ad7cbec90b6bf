import numpy as np
import pytest

from cluster_jobs.core.errors import UserError
from s3gan.metrics import score
from s3gan.metrics.detector import Detector, Features, Protocol
from s3gan.metrics.trained import NotAvailable

CLASSIFIER = Protocol("classifier", "d" * 64, "own size, scaled to [-1, 1]")


def features(n, split="samples", protocol=CLASSIFIER, seed=0):
    values = np.random.RandomState(seed).standard_normal((n, 4)).astype(np.float32)
    return Features(values, protocol, {"split": split})


@pytest.mark.parametrize(
    "other",
    [
        Protocol("classifier", "b" * 64, CLASSIFIER.preprocessing),
        Protocol("encoder", CLASSIFIER.hash, CLASSIFIER.preprocessing),
        Protocol("classifier", CLASSIFIER.hash, "resized to 224 px"),
    ],
)
@pytest.mark.parametrize("scored", [score.frechet_score, score.kernel_score, score.prdc_scores])
def test_features_of_another_protocol_are_refused_in_one_line(scored, other):
    with pytest.raises(UserError, match="classifier dddddddddddd .* cannot be scored against a reference of") as error:
        scored(features(9), features(9, "test", other))
    assert "\n" not in str(error.value) and other.preprocessing in str(error.value)


def test_a_score_is_named_for_its_counts_and_carries_its_protocol():
    few, many = features(30), features(1000, "test", seed=1)
    found = score.kernel_score(few, many, seed=5).to_dict()
    assert found.pop("value") != 0 and found.pop("sd") > 0
    assert found == {
        "name": "kd_classifier30",
        "samples": 30,
        "reference": 1000,
        "detector": "d" * 12,
        "preprocessing": "own size, scaled to [-1, 1]",
        "split": "test",
        "seed": 5,
        "subsets": 100,
        "subset_size": 30,
    }
    assert score.frechet_score(features(1000), many).name == "fd_classifier1k"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("fd", "classifier", "10k", "test"), "fd_classifier10k"),
        (("fd", "classifier", "10k", "train"), "fd_classifier10k_train"),
        (("fd", "classifier", "1437", "real train"), "fd_classifier1437"),
        (("fd", "encoder", "1500", "test"), "fd_encoder1500"),
        (("fd", "dinov2", "10k", "test"), "fd_dinov2_10k"),
        (("fd", "inception", "50k", "train"), "fid50k_train"),
        (("kd", "inception", "10k", "test"), "kid10k"),
        (("is", "inception", "10k"), "is10k"),
        (("precision", "inception", "10k", "test"), "precision_inception10k"),
    ],
)
def test_only_the_network_of_fid_makes_fid_kid_and_is(words, name):
    assert score.score_name(*words) == name


def test_counts_are_whole_thousands_or_plain():
    assert [score.amount(count) for count in (10_000, 1_500, 360)] == ["10k", "1500", "360"]


def test_precision_needs_as_many_images_on_both_sides_and_says_its_k():
    ours, real = score.equal_counts(features(40), features(100, "test", seed=1), seed=0)
    found = score.prdc_scores(ours, real)
    assert [(one.name, one.details["k"]) for one in found] == [
        ("precision_classifier40", 3),
        ("recall_classifier40", 3),
        ("density_classifier40", 5),
        ("coverage_classifier40", 5),
    ]
    with pytest.raises(UserError, match="40 images against 100 real ones"):
        score.prdc_scores(features(40), features(100, "test"))
    with pytest.raises(NotAvailable, match="a ball needs 5 neighbours"):
        score.prdc_scores(features(5), features(5, "test"))


def test_equal_counts_are_a_keyed_choice_of_rows():
    few, many = features(10), features(25, "test")
    ours, real = score.equal_counts(few, many, seed=0)
    assert np.array_equal(ours.values, few.values) and len(real) == 10
    assert {row.tobytes() for row in real.values} <= {row.tobytes() for row in many.values}
    assert np.array_equal(score.equal_counts(few, many, seed=0)[1].values, real.values)


def test_the_inception_score_needs_ten_images():
    protocol = Protocol("inception", "f" * 64, "299 px")
    judge = Detector(protocol, lambda images: images, last_layer=np.ones((3, 4), np.float32))
    found = score.inception_score_of(judge, features(20, protocol=protocol), seed=2)
    assert (found.name, found.reference, found.details["splits"]) == ("is20", 0, 10)
    assert found.value == pytest.approx(1)  # every class is equally likely for every image
    with pytest.raises(NotAvailable, match="9 images"):
        score.inception_score_of(judge, features(9, protocol=protocol))
