"""The shares of a batch: every place once, equal, and what a part of every share is taken together."""

from collections.abc import Callable

import pytest

from cluster_jobs.distributed.batch_split import contiguous, strided

PLACES = list(range(24))


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("share", [contiguous, strided])
def test_every_place_of_a_batch_is_in_one_share_and_shares_are_equal(
    share: Callable[[int, int, int], slice], world: int
) -> None:
    shares = [PLACES[share(24, rank, world)] for rank in range(world)]
    assert sorted(place for places in shares for place in places) == PLACES
    assert {len(places) for places in shares} == {24 // world}


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6])
def test_the_last_of_every_strided_share_are_the_last_of_the_batch(world: int) -> None:
    last = [place for rank in range(world) for place in PLACES[strided(24, rank, world)][-12 // world :]]
    assert sorted(last) == PLACES[-12:]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6])
def test_the_even_places_of_all_contiguous_shares_are_those_of_the_batch(world: int) -> None:
    even = [place for rank in range(world) for place in PLACES[contiguous(24, rank, world)][::2]]
    assert even == PLACES[::2]
