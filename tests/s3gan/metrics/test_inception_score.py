import numpy as np
import pytest

from s3gan.metrics.inception_score import inception_score


def naive(features, weight, splits):
    """Salimans et al. 2016, section 4, written out; mean and standard deviation over the splits."""
    logits = features.astype(float) @ weight.astype(float).T
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = []
    for split in range(splits):
        part = shares[split * len(shares) // splits : (split + 1) * len(shares) // splits]
        divergences = [(p * np.log(p / part.mean(0))).sum() for p in part]
        scores.append(np.exp(np.mean(divergences)))
    return np.mean(scores), np.std(scores)


@pytest.mark.parametrize("splits", [1, 4])
def test_the_score_is_the_definition(splits):
    random = np.random.RandomState(0)
    features, weight = random.standard_normal((37, 5)).astype(np.float32), random.standard_normal((7, 5))
    found = inception_score(features, weight.astype(np.float32), splits)
    assert found == pytest.approx(naive(features, weight.astype(np.float32), splits), rel=1e-12)


def test_sure_and_evenly_spread_classes_score_their_number():
    features = np.eye(4, dtype=np.float32)[np.arange(80) % 4] * 1000
    assert inception_score(features, np.eye(4, dtype=np.float32)) == pytest.approx((4, 0))
    with pytest.raises(ValueError, match="9 images cannot be split into 10"):
        inception_score(features[:9], np.eye(4, dtype=np.float32))
