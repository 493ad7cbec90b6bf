import torch

from simgan.history import History

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
