"""The arithmetic of re-clustering, against brute force: numbers are matched, clusters started and found."""

import itertools

import numpy as np
import pytest
import torch

from s3gan.training import reclustering
from s3gan.training.reclustering import match_clusters, nearest, overlaps, starting_means


def table_of(pairs: np.ndarray) -> np.ndarray:
    return np.array(
        [[int(((pairs[0] == row) & (pairs[1] == column)).sum()) for column in range(5)] for row in range(5)]
    )


@pytest.mark.parametrize("clusters", [1, 2, 3, 4, 5])
def test_matched_clusters_share_as_many_images_as_in_the_best_of_all_permutations(clusters: int) -> None:
    random = np.random.RandomState(clusters)
    for _ in range(20):
        new, old = random.randint(clusters, size=(2, 30))
        matched = match_clusters(new, old, clusters)
        assert sorted(matched) == list(range(clusters))
        kept = (matched[new] == old).sum()
        assert kept == max((np.array(order)[new] == old).sum() for order in itertools.permutations(range(clusters)))


def test_clusters_that_are_only_renamed_get_their_old_numbers_back() -> None:
    random = np.random.RandomState(0)
    old, names = random.randint(7, size=500), random.permutation(7)
    assert np.array_equal(match_clusters(names[old], old, 7)[names[old]], old)
    assert match_clusters(old, old, 7).tolist() == list(range(7))
    noisy = np.where(random.rand(500) < 0.3, random.randint(7, size=500), names[old])
    assert np.array_equal(match_clusters(noisy, old, 7)[names], np.arange(7))


def test_overlaps_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclustering, "ROWS", 7)
    pairs = np.random.RandomState(0).randint(5, size=(2, 30)).astype(np.int32)
    assert np.array_equal(overlaps(*pairs, 5), table_of(pairs))


def test_clusters_start_from_the_means_of_their_images_and_empty_ones_from_the_farthest_images() -> None:
    points = np.array([[0, 0], [2, 0], [10, 0], [10, 1], [10, 20]], np.float32)
    means = starting_means(points, np.array([3, 3, 0, 0, 0]), 5)
    # squared distances to their means: 1, 1, 49, 36 and 169
    expected = [[10, 7], [10, 20], [10, 0], [1, 0], [10, 1]]
    np.testing.assert_array_equal(means, np.array(expected, np.float32))


def test_the_nearest_centroid_is_that_of_the_smallest_distance() -> None:
    points, centroids = torch.randn(50, 6), torch.randn(9, 6)
    assert nearest(points, centroids).tolist() == torch.cdist(points.double(), centroids.double()).argmin(1).tolist()
