import numpy as np
import pytest
import scipy.linalg
import torch

from s3gan.metrics.frechet import FeatureStatistics, distance_between, distance_of_samples, frechet_distance


def spread(random, n, mix):
    return random.standard_normal((n, len(mix))) @ mix + random.standard_normal(len(mix))


def test_the_distance_of_diagonal_gaussians_is_the_closed_form():
    means = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 0.5])
    variances = np.array([4.0, 1.0, 0.25]), np.array([1.0, 9.0, 0.25])
    expected = ((means[0] - means[1]) ** 2).sum() + ((np.sqrt(variances[0]) - np.sqrt(variances[1])) ** 2).sum()
    found = frechet_distance(means[0], np.diag(variances[0]), means[1], np.diag(variances[1]))
    assert found == pytest.approx(expected, rel=1e-12)


def test_the_distance_equals_the_one_with_a_matrix_square_root():
    random = np.random.RandomState(0)
    first, second = (spread(random, 200, random.standard_normal((6, 6))) for _ in range(2))
    cov1, cov2 = np.cov(first.T), np.cov(second.T)
    root = scipy.linalg.sqrtm(cov1 @ cov2).real
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(cov1 + cov2 - 2 * root)
    assert frechet_distance(first.mean(0), cov1, second.mean(0), cov2) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(second.mean(0), cov2, first.mean(0), cov1) == pytest.approx(expected, rel=1e-9)


def naive_distance(first, second):
    """Heusel et al. 2017, eq. 6, from float64 samples with numpy's covariance and scipy's matrix root."""
    covariances = np.cov(first.T), np.cov(second.T)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    trace = np.trace(covariances[0] + covariances[1])
    return ((first.mean(0) - second.mean(0)) ** 2).sum() + trace - 2 * np.trace(root), trace


def test_the_distance_of_float32_features_is_naive_float64_to_a_millionth_of_the_trace():
    random = np.random.RandomState(0)
    first, second = (spread(random, 640, random.standard_normal((64, 64))).astype(np.float32) for _ in range(2))
    expected, trace = naive_distance(first.astype(np.float64), second.astype(np.float64))
    found = distance_between(FeatureStatistics.of(first), FeatureStatistics.of(second, chunk=100))
    assert abs(found - expected) < 1e-6 * trace and expected > trace / 100


@pytest.mark.parametrize(("n", "m"), [(12, 17), (50, 17), (17, 50), (70, 70)])
def test_the_distance_of_few_samples_is_the_one_through_their_covariances(n, m):
    random = np.random.RandomState(0)
    first, second = (spread(random, count, np.eye(40)) * 2 for count in (n, m))
    expected = frechet_distance(first.mean(0), np.cov(first.T), second.mean(0), np.cov(second.T))
    found = distance_of_samples(torch.from_numpy(first), torch.from_numpy(second))
    assert found == pytest.approx(expected, rel=1e-7)  # roots of eigenvalues that are 0 but for rounding
    assert distance_of_samples(torch.from_numpy(first), torch.from_numpy(first)) < 1e-9
    with pytest.raises(ValueError, match="at least 2 feature vectors, got 1"):
        distance_of_samples(torch.from_numpy(first[:1]), torch.from_numpy(second))


def test_a_set_has_no_distance_to_itself_even_with_fewer_samples_than_features():
    features = np.random.RandomState(0).standard_normal((10, 40))
    statistics = FeatureStatistics.of(features)
    assert distance_between(statistics, statistics) < 1e-10


def test_statistics_are_those_of_numpy_with_the_unbiased_covariance():
    features = spread(np.random.RandomState(1), 57, np.eye(5)) * 3 + 100
    statistics = FeatureStatistics.of(features.astype(np.float32), chunk=10)
    exact = features.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(statistics.mean, exact.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(exact.T), rtol=1e-9)


def test_merged_and_reduced_statistics_equal_those_of_all_samples():
    features = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = FeatureStatistics.of(features)
    parts = [FeatureStatistics.of(features[:7]), FeatureStatistics.of(features[7:])]
    merged = FeatureStatistics(4)
    for part in parts:
        merged.merge(part)
    ranks = iter([torch.tensor(23.0), parts[1].sums, parts[1].products])  # what the other rank adds, in call order
    parts[0].reduce(lambda tensor: tensor + next(ranks))
    for found in (merged, parts[0]):
        assert found.count == 30
        np.testing.assert_allclose(found.covariance, whole.covariance, rtol=1e-12)
        np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-12)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_samples_are_refused(count):
    with pytest.raises(ValueError, match=f"at least 2 feature vectors, got {count}"):
        _ = FeatureStatistics.of(np.zeros((count, 3))).covariance


def test_statistics_of_other_features_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(np.zeros(2), np.eye(2), np.array([0, np.nan]), np.eye(2))
    with pytest.raises(ValueError, match=r"expected \(n, 3\)"):
        FeatureStatistics(3).update(torch.zeros(5, 2))
