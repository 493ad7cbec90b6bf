import numpy as np
import pytest
import torch

from s3gan.metrics import knn as neighbours
from s3gan.metrics.knn import centred, nearest
from s3gan.metrics.prdc import prdc, squared_radii


def naive_distances(a, b):
    """Every pair by its differences, float64."""
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))


def naive_prdc(real, fake):
    """Kynkäänniemi et al. 2019, eq. 1 and 2 with k = 3, and Naeem et al. 2020, eq. 3 and 4 with k = 5, by loops."""

    def radii(points, k):
        return [sorted(row)[k] for row in naive_distances(points, points)]  # the first is the point itself

    between, n, m = naive_distances(real, fake), len(real), len(fake)
    narrow, wide, around_fake = radii(real, 3), radii(real, 5), radii(fake, 3)
    return {
        "precision": sum(any(between[i, j] <= narrow[i] for i in range(n)) for j in range(m)) / m,
        "recall": sum(any(between[i, j] <= around_fake[j] for j in range(m)) for i in range(n)) / n,
        "density": sum(between[i, j] <= wide[i] for i in range(n) for j in range(m)) / (5 * m),
        "coverage": sum(any(between[i, j] <= wide[i] for j in range(m)) for i in range(n)) / n,
    }


def two_sets(n=60, m=45, features=3, shift=1.2, spread=1.2, offset=0.0):
    random = np.random.RandomState(0)
    real = random.standard_normal((n, features)) + offset
    return real, spread * random.standard_normal((m, features)) + shift + offset


@pytest.fixture(params=[(7, 5), (64, 64)], ids=["small blocks", "one block"])
def sizes(request, monkeypatch):
    block, columns = request.param
    monkeypatch.setattr(neighbours, "BLOCK", block * columns)
    monkeypatch.setattr(neighbours, "COLUMNS", columns)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_four_scores_are_those_of_the_papers(sizes, offset):
    real, fake = two_sets(offset=offset)
    found = prdc(*centred(real, fake))
    assert found == pytest.approx(naive_prdc(real, fake), abs=1e-12)
    assert all(0 < value < 1 for value in found.values())  # the case is no trivial one


def test_points_on_the_rim_are_inside_whatever_rounding_does(sizes):
    random = np.random.RandomState(1)
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)  # all distances tie
    real, fake = grid[random.permutation(64)[:40]], grid[random.permutation(64)[:40]]
    expected = naive_prdc(real, fake)
    turn, _ = np.linalg.qr(random.standard_normal((3, 3)))  # same distances, other rounding
    for change in (lambda x: x, lambda x: x @ turn * 0.1 + 30):
        assert prdc(*centred(change(real), change(fake))) == pytest.approx(expected, abs=1e-12)


def test_copies_of_the_real_images_are_precise_and_cover_all():
    real = two_sets()[0]
    found = prdc(*centred(real, real.copy()))
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
    assert found["density"] == pytest.approx(6 / 5)  # each ball holds its centre and 5 others, the last on the rim


def test_float32_features_are_compared_exactly_in_float64():
    real, fake = (side.astype(np.float32) for side in two_sets(offset=100.0))
    expected = naive_prdc(real.astype(np.float64), fake.astype(np.float64))
    assert prdc(*centred(real, fake)) == pytest.approx(expected, abs=1e-12)


def test_known_radii_change_nothing():
    real, fake = centred(*two_sets())
    assert prdc(real, fake, squared_radii(real), squared_radii(fake)) == prdc(real, fake)


def test_as_many_points_as_neighbours_are_refused():
    points = torch.zeros(5, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="5 points have no 6 nearest"):
        prdc(points, points)


def test_the_published_package_agrees():
    package = pytest.importorskip("prdc")
    real, fake = two_sets(300, 300, features=16, shift=0.2, spread=0.9)
    narrow = package.compute_prdc(real, fake, nearest_k=3)
    wide = package.compute_prdc(real, fake, nearest_k=5)
    expected = {"precision": narrow["precision"], "recall": narrow["recall"]}
    expected |= {"density": wide["density"], "coverage": wide["coverage"]}
    assert prdc(*centred(real, fake)) == pytest.approx(expected, abs=1e-12)


def test_the_nearest_points_are_those_of_all_pairs(sizes):
    queries, points = two_sets(50, 33)
    distances, indices = nearest(torch.from_numpy(queries), torch.from_numpy(points), 4)
    every = naive_distances(queries, points)
    np.testing.assert_array_equal(indices.numpy(), np.argsort(every, axis=1)[:, :4])
    np.testing.assert_allclose(distances.numpy(), np.sort(every**2, axis=1)[:, :4], rtol=1e-10)
