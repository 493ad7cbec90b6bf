import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from simgan.training.history import History

CPU = torch.device("cpu")


def numbered(first: int, count: int) -> torch.Tensor:
    """Images that carry their number in every pixel."""
    return torch.arange(first, first + count).float().view(-1, 1, 1, 1).expand(count, 1, 2, 2)


def history(capacity: int = 6, seed: int = 0) -> History:
    return History(capacity, (1, 2, 2), seed=seed, device=CPU)


def test_the_buffer_fills() -> None:  # public implementations lose what they append, and stay empty for ever
    buffer = history()
    for step in range(3):
        assert buffer.filled == 2 * step
        buffer.add(numbered(2 * step, 2), step)
    assert buffer.filled == 6
    assert buffer.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_full_buffer_replaces_as_many_as_come_in() -> None:
    buffer = history()
    buffer.add(numbered(0, 6), 0)
    buffer.add(numbered(100, 2), 1)
    kept = buffer.images[:, 0, 0, 0]
    assert buffer.filled == 6 and (kept >= 100).sum() == 2 and set(kept[kept >= 100].tolist()) == {100.0, 101.0}


def test_images_that_fill_the_last_slots_replace_others_with_the_rest() -> None:
    buffer = history()
    buffer.add(numbered(0, 5), 0)
    buffer.add(numbered(100, 3), 1)
    assert buffer.filled == 6
    assert sorted(value for value in buffer.images[:, 0, 0, 0].tolist() if value >= 100)[-1] == 102


def test_a_sample_holds_different_images_that_were_put_in() -> None:
    buffer = history()
    buffer.add(numbered(10, 4), 0)
    drawn = buffer.sample(4, 1)[:, 0, 0, 0].tolist()
    assert sorted(drawn) == [10, 11, 12, 13]


def test_every_image_is_drawn_and_replaced_in_time() -> None:
    buffer = history()
    buffer.add(numbered(0, 6), 0)
    drawn = {value for step in range(60) for value in buffer.sample(2, step)[:, 0, 0, 0].tolist()}
    assert drawn == {0, 1, 2, 3, 4, 5}
    for step in range(60):
        buffer.add(numbered(100 + 2 * step, 2), step)
    assert buffer.images.min() >= 100


def test_draws_depend_on_seed_and_step_alone() -> None:
    def drawn(seed: int, step: int) -> list[float]:
        buffer = history(seed=seed)
        buffer.add(numbered(0, 6), 0)
        return buffer.sample(3, step).flatten().tolist()

    assert drawn(0, 5) == drawn(0, 5)
    assert len({tuple(drawn(seed, step)) for seed in range(3) for step in range(3)}) > 5


def test_a_restored_buffer_goes_on_as_the_first_would_have() -> None:
    first = history()
    for step in range(5):
        first.add(numbered(2 * step, 2), step)
    second = history()
    second.load_state_dict({name: value for name, value in first.state_dict().items()})
    for buffer in (first, second):
        buffer.add(numbered(50, 2), 5)
    assert torch.equal(first.images, second.images) and torch.equal(first.sample(3, 6), second.sample(3, 6))


def test_nothing_that_is_not_finite_stays() -> None:
    buffer = history()
    buffer.add(torch.full((2, 1, 2, 2), float("nan")), 0)
    assert buffer.images.isfinite().all()


class Ranks:
    """Ranks of one process, as threads that meet in each collective."""

    def __init__(self, world: int) -> None:
        self.world, self.meet, self.told = world, threading.Barrier(world, timeout=10), [torch.empty(0)] * world

    def joined(self, rank: int, tensor: torch.Tensor) -> list[torch.Tensor]:
        self.told[rank] = tensor.clone()
        self.meet.wait()
        joined = list(self.told)
        self.meet.wait()
        return joined

    def history(self, rank: int, capacity: int) -> History:
        return History(
            capacity,
            (1, 2, 2),
            seed=3,
            device=CPU,
            rank=rank,
            world=self.world,
            gather=lambda tensor: torch.cat(self.joined(rank, tensor)),
            reduce=lambda tensor: torch.stack(self.joined(rank, tensor)).sum(0),
        )

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        with ThreadPoolExecutor(self.world) as pool:
            return list(pool.map(work, range(self.world)))


def played(
    world: int, steps: range, state: dict[str, Any] | None = None, capacity: int = 7
) -> tuple[dict[str, Any], list[float]]:
    """What a history of so many ranks holds after the steps, and what was drawn from it in every step."""
    ranks = Ranks(world)

    def work(rank: int) -> tuple[dict[str, Any], list[float]]:
        buffer, drawn = ranks.history(rank, capacity), []
        if state is not None:
            buffer.load_state_dict(state)
        assert len(buffer.images) <= -(-capacity // world)  # the ranks share it out
        for step in steps:
            if buffer.filled >= 2:
                drawn += buffer.sample(2, step)[:, 0, 0, 0].tolist()
            buffer.add(numbered(2 * step, 2), step)
        return buffer.state_dict(), drawn

    found = ranks.run(work)
    for other, drawn in found[1:]:
        assert torch.equal(other["images"], found[0][0]["images"]) and drawn == found[0][1]
    return found[0]


@pytest.mark.parametrize("world", [2, 3, 8])
def test_many_ranks_hold_and_draw_what_one_does(world: int) -> None:
    (one, drawn_by_one), (many, drawn) = played(1, range(12)), played(world, range(12))
    assert torch.equal(many["images"], one["images"]) and many["filled"] == one["filled"] == 7
    assert drawn == drawn_by_one


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (3, 2)])
@pytest.mark.parametrize("cut", [2, 9])  # while it fills, and when it is full
def test_a_buffer_goes_on_with_another_number_of_ranks(before: int, after: int, cut: int) -> None:
    whole, drawn_in_all = played(1, range(12))
    state, drawn = played(before, range(cut))
    end, drawn_later = played(after, range(cut, 12), state)
    assert torch.equal(end["images"], whole["images"]) and end["filled"] == whole["filled"]
    assert drawn + drawn_later == drawn_in_all


def test_a_buffer_of_another_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match="7 images, expected 6"):
        history().load_state_dict(history(7).state_dict())


def test_a_buffer_of_no_capacity_keeps_nothing() -> None:
    buffer = history(0)
    buffer.add(numbered(0, 4), 0)
    assert buffer.filled == 0 and buffer.state_dict()["images"].shape == (0, 1, 2, 2)


def follow_algorithm_1(buffer: History) -> None:
    """Algorithm 1 in plain lists: sample from what is held, then fill the next free slots or replace random ones."""
    held: list[float] = []
    for step in range(20):
        fresh = [100.0 * step + 1, 100.0 * step + 2]
        if len(held) >= 2:
            assert buffer.filled == len(held)
            drawn = buffer.sample(2, step)[:, 0, 0, 0].tolist()
            assert len(set(drawn)) == 2 and set(drawn) <= set(held)
        buffer.add(torch.tensor(fresh).view(2, 1, 1, 1).expand(2, 1, 2, 2), step)
        now = buffer.images[: buffer.filled, 0, 0, 0].tolist()
        if len(held) < buffer.capacity:
            held = held + fresh  # nothing that was held is lost
            assert now == held
        else:
            assert set(now) - set(held) == set(fresh) and len(set(held) - set(now)) == 2
            assert sum(a != b for a, b in zip(now, held, strict=True)) == 2  # in the slots of the lost ones
            held = now
    assert len(held) == buffer.capacity


def test_the_buffer_follows_algorithm_1_written_out() -> None:
    follow_algorithm_1(history())


class Forgetful(History):
    """As in two public implementations, where the result of np.append is thrown away: nothing is ever held."""

    def add(self, fresh: torch.Tensor, step: int) -> None:
        np.append(self.images[: self.filled].numpy(), fresh.numpy(), axis=0)


def test_a_buffer_that_never_fills_would_fail_the_same_check() -> None:
    with pytest.raises(AssertionError):
        follow_algorithm_1(Forgetful(6, (1, 2, 2), seed=0, device=CPU))
