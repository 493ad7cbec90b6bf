"""k-means against scikit-learn, and cluster scores against scikit-learn or hand values."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from cluster_jobs.core.errors import UserError
from selfsup.labelling.clustering import Space, agreement, embed, kmeans, size_entropy


def blobs(clusters: int, each: int, width: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    centres = np.eye(clusters, width) * 10
    truth = np.repeat(np.arange(clusters), each)
    return (centres[truth] + random.randn(len(truth), width) * 0.3).astype(np.float32), truth


@pytest.mark.parametrize("space", list(Space))
def test_separate_blobs_are_found_exactly(space: Space) -> None:
    features, truth = blobs(6, 40)
    found = kmeans(features, 6, seed=0, space=space)
    assert agreement(found.labels, truth).matched_accuracy == 1.0
    assert found.empty == 0 and found.sizes.tolist() == [40] * 6
    assert found.size_entropy == pytest.approx(1.0)


def test_inertia_is_that_of_scikit_learn_on_real_digits() -> None:
    features = load_digits().data.astype(np.float32)
    ours = np.median([kmeans(features, 20, seed=seed, space=Space.raw).inertia for seed in range(3)])
    theirs = KMeans(20, n_init=3, random_state=0).fit(features).inertia_ / len(features)
    assert ours < 1.03 * theirs


@pytest.mark.parametrize("space", list(Space))
def test_distances_are_squared_distances_to_the_mean_of_the_cluster(space: Space) -> None:
    features, _ = blobs(4, 50, seed=3)
    found = kmeans(features, 4, seed=1, space=space)
    points = embed(features, space).astype(np.float64)
    for cluster in range(4):
        members = points[found.labels == cluster]
        centre = members.mean(axis=0)
        if space is not Space.raw:
            centre /= np.linalg.norm(centre)
        expected = ((members - centre) ** 2).sum(axis=1)
        np.testing.assert_allclose(found.distances[found.labels == cluster], expected, rtol=1e-3, atol=1e-4)


def test_whitened_features_have_unit_covariance_before_their_length_is_taken_away() -> None:
    random = np.random.RandomState(0)
    features = (random.randn(5000, 3) @ np.diag([100.0, 1.0, 0.01]) + 7).astype(np.float32)
    directions = embed(features, Space.whiten)
    assert directions.shape == (5000, 2)  # the third direction has 1e-8 of the variance
    np.testing.assert_allclose(directions.T @ directions / 5000, np.eye(2) / 2, atol=0.02)


@pytest.mark.parametrize("space", list(Space))
def test_a_seed_gives_the_same_clusters_again_and_another_seed_others(space: Space) -> None:
    features = np.random.RandomState(0).randn(2000, 16).astype(np.float32)
    first, again, other = (kmeans(features, 25, seed=seed, space=space) for seed in (4, 4, 5))
    assert np.array_equal(first.labels, again.labels) and np.array_equal(first.distances, again.distances)
    assert not np.array_equal(first.labels, other.labels)


def test_fewer_distinct_points_than_clusters_leave_empty_clusters_and_are_counted() -> None:
    features = np.repeat(np.eye(3, 4, dtype=np.float32), 10, axis=0)
    found = kmeans(features, 7, seed=0, space=Space.raw)
    assert found.empty == 7 - len(np.unique(found.labels)) >= 4
    assert found.sizes.sum() == 30 and len(found.sizes) == 7


@pytest.mark.parametrize("clusters", [0, -1, 31])
def test_a_number_of_clusters_that_cannot_be_is_refused(clusters: int) -> None:
    with pytest.raises(UserError, match=f"clusters={clusters}: expected 1 to 30"):
        kmeans(np.ones((30, 4), np.float32), clusters, seed=0)


def test_a_feature_that_is_not_finite_is_named() -> None:
    features = np.ones((30, 4), np.float32)
    features[17, 2] = np.nan
    with pytest.raises(UserError, match="sample 17 are not finite"):
        kmeans(features, 2, seed=0, space=Space.raw)


@pytest.mark.parametrize(("clusters", "classes"), [(5, 5), (12, 4), (3, 9), (1, 6), (6, 1), (1, 1)])
def test_nmi_and_ari_are_those_of_scikit_learn(clusters: int, classes: int) -> None:
    random = np.random.RandomState(clusters)
    truth = random.randint(classes, size=300)
    found = np.where(random.rand(300) < 0.5, truth % clusters, random.randint(clusters, size=300))
    scores = agreement(found, truth)
    assert scores.nmi == pytest.approx(normalized_mutual_info_score(truth, found), abs=1e-12)
    assert scores.ari == pytest.approx(adjusted_rand_score(truth, found), abs=1e-12)


def test_accuracies_of_a_partition_counted_by_hand() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    found = np.array([2, 2, 0, 0, 1, 1, 2, 1])
    scores = agreement(found, truth)
    # clusters × classes: 0: (2, 0, 0), 1: (0, 2, 1), 2: (2, 1, 0); one to one: 2 + 2 (or 1 in its place) + 0
    assert scores.matched_accuracy == 4 / 8
    assert scores.majority_accuracy == (2 + 2 + 2) / 8


def test_names_of_clusters_do_not_matter() -> None:
    truth = np.random.RandomState(0).randint(5, size=100)
    scores = agreement((truth + 2) % 5, truth)
    assert (scores.nmi, scores.ari, scores.matched_accuracy) == (pytest.approx(1), pytest.approx(1), 1)


def test_size_entropy_by_hand() -> None:
    assert size_entropy(np.array([5, 5, 5, 5])) == pytest.approx(1.0)
    assert size_entropy(np.array([20, 0, 0, 0])) == 0.0
    assert size_entropy(np.array([10, 10, 0, 0])) == pytest.approx(0.5)
    assert size_entropy(np.array([7])) == 1.0
