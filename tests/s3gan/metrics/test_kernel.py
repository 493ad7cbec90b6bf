import numpy as np
import pytest
import torch

from s3gan.metrics.kernel import kernel_distance, polynomial_mmd2


def naive_mmd2(x, y):
    """Binkowski et al. 2018 by three double loops."""

    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(kernel(a, b) for a in x for b in y) / (n * m)
    return xx + yy - 2 * xy


def samples(n, seed, shift=0.0):
    return np.random.RandomState(seed).standard_normal((n, 5)) + shift


@pytest.mark.parametrize("chunk", [3, 100])
def test_the_distance_equals_the_definition_whatever_the_chunk(chunk):
    x, y = samples(13, 0), samples(9, 1, shift=0.3)
    found = polynomial_mmd2(torch.from_numpy(x), torch.from_numpy(y), chunk)
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(naive_mmd2(x, y), rel=1e-12)


def test_the_estimate_is_unbiased():
    draws = [float(polynomial_mmd2(*torch.from_numpy(samples(40, seed)).split(20))) for seed in range(400)]
    error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws)) < 4 * error
    assert min(draws) < 0  # the biased estimate never is


def test_a_subset_of_everything_gives_the_plain_distance_and_no_spread():
    x, y = samples(12, 0), samples(12, 1, shift=1.0)
    value, sd, size = kernel_distance(x, y, subsets=3, size=1000)
    assert size == 12
    assert value == pytest.approx(naive_mmd2(x, y), rel=1e-12)
    assert sd < 1e-12


def test_subsets_depend_on_the_seed_alone():
    x, y = samples(60, 0), samples(50, 1, shift=0.5)
    first = kernel_distance(x, y, subsets=5, size=20, seed=3)
    torch.manual_seed(123)
    np.random.seed(123)
    assert kernel_distance(x, y, subsets=5, size=20, seed=3) == first
    assert kernel_distance(x, y, subsets=5, size=20, seed=4)[0] != first[0]
    assert first[1] > 0


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match="at least 2 samples a side, got 1 and 1"):
        kernel_distance(samples(1, 0), samples(5, 0))
