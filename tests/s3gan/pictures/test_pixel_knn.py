import numpy as np
import pytest
import torch

from s3gan.pictures import pixel_knn as nearest
from s3gan.pictures.neighbours import Neighbours, first_samples, without_themselves
from s3gan.pictures.pixel_knn import Nearest, search, squared_distances


def bytes_of(count, length, seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, length)).astype(np.uint8))


def brute_force(queries, candidates, k):
    """By whole numbers, one pair at a time; the smaller index wins a tie."""
    distances = np.array([[((q - c) ** 2).sum() for c in candidates] for q in queries.numpy().astype(np.int64)])
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), order


def test_distances_are_exact_over_several_slices(monkeypatch):
    monkeypatch.setattr(nearest, "SLICE", 7)
    first, second = bytes_of(5, 50, 0), bytes_of(6, 50, 1)
    expected, _ = brute_force(first, second.numpy().astype(np.int64), 6)
    np.testing.assert_array_equal(squared_distances(first, second).sort(1).values, expected)


def test_distances_of_the_largest_images_are_exact():
    black, white = (
        torch.zeros(1, 512 * 512 * 3, dtype=torch.uint8),
        torch.full((1, 512 * 512 * 3), 255, dtype=torch.uint8),
    )
    white[0, 0] = 254
    assert squared_distances(black, white).item() == 255**2 * (512 * 512 * 3 - 1) + 254**2


@pytest.mark.parametrize("chunk", [1, 4, 30])
def test_a_search_in_chunks_finds_what_brute_force_finds(chunk):
    queries, candidates = bytes_of(6, 12, 2) // 100, bytes_of(30, 12, 3) // 100  # few values: many ties
    chunks = [
        (candidates[start : start + chunk], torch.arange(30)[start : start + chunk]) for start in range(0, 30, chunk)
    ]
    distances, indices = brute_force(queries, candidates.numpy().astype(np.int64), 5)
    for order in (chunks, chunks[::-1]):
        found = search(queries, 5, order)
        np.testing.assert_array_equal(found.distances, distances)
        np.testing.assert_array_equal(found.indices, indices)


def test_searches_of_two_ranks_add_up_to_the_whole():
    queries, candidates = bytes_of(4, 9, 4), bytes_of(21, 9, 5)
    numbers = torch.arange(100, 121)
    halves = [search(queries, 3, [(candidates[part::2], numbers[part::2])]) for part in (0, 1)]
    whole = Nearest(queries, 3)
    for half in halves:
        whole.add(half.distances, half.indices)
    expected = search(queries, 3, [(candidates, numbers)])
    assert torch.equal(whole.distances, expected.distances) and torch.equal(whole.indices, expected.indices)


def test_a_rank_without_candidates_adds_nothing():
    queries = bytes_of(2, 3, 6)
    empty = search(queries, 2, [])
    assert (empty.indices == -1).all()
    whole = search(queries, 2, [(bytes_of(5, 3, 7), torch.arange(5))])
    before = whole.indices.clone()
    whole.add(empty.distances, empty.indices)
    assert torch.equal(whole.indices, before)


def test_a_real_image_is_no_neighbour_of_its_own():
    found = Neighbours(np.array([[0.0, 1, 2], [0, 0, 3], [0, 0, 0]]), np.array([[7, 3, 4], [2, 8, 1], [4, 5, 6]]))
    others = without_themselves(found, np.array([7, 8, 9]))  # the last is hidden behind three equal images
    assert others.indices.tolist() == [[3, 4], [2, 1], [4, 5]]
    assert others.distances.tolist() == [[1, 2], [0, 3], [0, 0]]


def test_closeness_is_zero_for_a_copy_and_one_among_equals():
    found = Neighbours(np.array([[0.0, 3, 3], [2, 2, 2], [0, 0, 0], [1, 2, 3]]), np.zeros((4, 3), np.int64))
    assert found.closeness.tolist() == [0, 1, 0, 0.5]


def test_the_first_sample_of_each_shown_class_stands_for_it():
    labels = np.array([5, 2, 5, 9, 2])
    assert first_samples(labels, [2, 7, 5]).tolist() == [1, 0]
    assert first_samples(labels, [7]).tolist() == [1, 0, 3]
