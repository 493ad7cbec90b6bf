import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster_jobs.core.errors import DamagedSample, UserError
from cluster_jobs.data import stream as stream_module
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Batch, Order, Stream, permute, scan
from cluster_jobs.distributed.batch_split import contiguous, strided
from tests.cluster_jobs.tiny import tiny_images

WINDOWS = ["1", "2", "64", "all"]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two samples, so that tiny shards have many of them and the windows matter."""
    monkeypatch.setattr(stream_module, "BLOCK_BYTES", 8 << 10)


def take(stream: Stream, start: int, batches: int) -> list[Batch]:
    return list(itertools.islice(stream.batches(start), batches))


def seen(batches: list[Batch]) -> list[int]:
    return [index for batch in batches for index in batch.indices.tolist()]


def order_of(shards: Shards, window: str = "64", seed: int = 0) -> Order:
    return Order(shards.shard_counts, shards.shard_bytes, seed=seed, window=window)


# --- keyed permutations


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 255, 1000, 1025])
def test_permute_hits_every_value_once(size: int) -> None:
    for key in (0, 1, 2**62):
        assert sorted(permute(np.arange(size), size, key)) == list(range(size))


def test_permute_of_one_value_is_the_value_in_the_whole() -> None:
    whole = permute(np.arange(1000), 1000, 7)
    assert [int(permute(np.array([place]), 1000, 7)[0]) for place in (0, 1, 500, 999)] == whole[
        [0, 1, 500, 999]
    ].tolist()


def test_permute_looks_random() -> None:
    """Over many keys each value lands everywhere equally often: a chi-squared test with 4 sigma of room."""
    size, keys = 10, 2000
    landed = np.stack([permute(np.arange(size), size, key) for key in range(keys)])
    counts = np.stack([np.bincount(landed[:, place], minlength=size) for place in range(size)])
    freedom = (size - 1) ** 2
    chi_squared = ((counts - keys / size) ** 2 / (keys / size)).sum()
    assert abs(chi_squared - freedom) < 4 * np.sqrt(2 * freedom)


# --- the order


@pytest.mark.parametrize("window", WINDOWS)
def test_an_epoch_holds_every_sample_exactly_once(tiny: Shards, small_blocks: None, window: str) -> None:
    order = order_of(tiny, window)
    epochs = [order.indices(np.arange(21 * epoch, 21 * (epoch + 1))).tolist() for epoch in range(4)]
    assert all(sorted(epoch) == list(range(21)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("window", WINDOWS)
def test_any_position_can_be_asked_for_alone_and_in_any_order(tiny: Shards, small_blocks: None, window: str) -> None:
    straight = order_of(tiny, window).indices(np.arange(100))
    asked = np.random.default_rng(0).permutation(100)
    assert np.array_equal(order_of(tiny, window).indices(asked), straight[asked])
    order = order_of(tiny, window)
    assert [int(order.indices(np.array([position]))[0]) for position in asked] == straight[asked].tolist()


def test_seeds_and_windows_give_different_orders(tiny: Shards, small_blocks: None) -> None:
    orders = [order_of(tiny, window, seed).indices(np.arange(21)) for window in ("1", "2", "all") for seed in (0, 1)]
    assert len({tuple(order.tolist()) for order in orders}) == 6


def test_a_window_of_one_block_reads_block_by_block() -> None:
    counts = np.array([7, 3, 11])
    order = Order(counts, counts * (stream_module.BLOCK_BYTES // 3), seed=0, window="1")  # blocks of three samples
    blocks = [
        range(0, 3),
        range(3, 6),
        range(6, 7),
        range(7, 10),
        range(10, 13),
        range(13, 16),
        range(16, 19),
        range(19, 21),
    ]
    left, epoch = {tuple(block) for block in blocks}, order.indices(np.arange(21)).tolist()
    while epoch:
        block = next(block for block in left if epoch[0] in block)
        assert sorted(epoch[: len(block)]) == list(block)
        left.remove(block)
        epoch = epoch[len(block) :]
    assert not left


def test_the_full_shuffle_mixes_all_shards() -> None:
    counts = np.full(10, 100)
    order = Order(counts, counts * (stream_module.BLOCK_BYTES // 10), seed=3, window="all").indices(np.arange(1000))
    first_shards = np.bincount(order[:100] // 100, minlength=10)
    assert first_shards.min() >= 1  # of 100 draws none misses a tenth, but for 0.03 % of the seeds
    assert abs(np.corrcoef(np.arange(1000), order)[0, 1]) < 4 / np.sqrt(1000)


def test_a_seek_into_a_thousand_million_samples_takes_milliseconds() -> None:
    counts = np.full(10_000, 100_000)
    order = Order(counts, counts * 3000, seed=0, window="64")
    order.indices(np.array([0]))
    begin = time.process_time()
    far = order.indices(np.arange(999_999_000, 999_999_256))
    assert time.process_time() - begin < 0.25
    assert len(set(far.tolist())) == 256 and far.max() < 10**9


# --- batches


@pytest.mark.parametrize("share", [contiguous, strided])
@pytest.mark.parametrize("window", WINDOWS)
def test_one_and_two_ranks_see_the_same_sample_order(
    tiny: Shards, small_blocks: None, window: str, share: Callable[[int, int, int], slice]
) -> None:
    alone = take(Stream(tiny, seed=5, batch=6, window=window), 0, 14)
    mine = [share(6, rank, 2) for rank in (0, 1)]
    ranks = [take(Stream(tiny, seed=5, batch=6, mine=places, window=window), 0, 14) for places in mine]
    for whole, *parts in zip(alone, *ranks, strict=True):
        for places, part in zip(mine, parts, strict=True):
            assert torch.equal(whole.indices[places], part.indices) and torch.equal(whole.images[places], part.images)
        assert {whole.position} == {part.position for part in parts}
    assert [batch.position for batch in alone] == list(range(0, 84, 6))
    epochs = np.array(seen(alone)).reshape(4, 21)  # batches of six run across the epochs' borders
    assert (np.sort(epochs, 1) == np.arange(21)).all()


def test_the_images_are_those_of_the_indices(tiny: Shards) -> None:
    for batch in take(Stream(tiny, seed=0, batch=5), 0, 9):
        assert batch.images.dtype == torch.uint8 and batch.images.shape == (5, 1, 8, 8)
        assert np.array_equal(batch.images.numpy(), tiny_images()[batch.indices.numpy()])


def test_reader_processes_give_the_same_batches_as_none(tiny: Shards, small_blocks: None) -> None:
    expected = take(Stream(tiny, seed=1, batch=4, window="2"), 12, 12)
    for workers in (1, 2):
        found = take(Stream(tiny, seed=1, batch=4, window="2", workers=workers), 12, 12)
        for one, other in zip(expected, found, strict=True):
            assert torch.equal(one.images, other.images) and torch.equal(one.indices, other.indices)
            assert one.position == other.position


@pytest.mark.parametrize("start", [0, 1, 4, 20, 21, 22, 63, 1000])
def test_starting_anywhere_is_reading_on(tiny: Shards, small_blocks: None, start: int) -> None:
    straight = Stream(tiny, seed=2, batch=1, window="2").order.indices(np.arange(start + 12))
    assert seen(take(Stream(tiny, seed=2, batch=4, window="2"), start, 3)) == straight[start:].tolist()


def test_a_stream_over_a_subset_holds_it_exactly_once_an_epoch(tiny: Shards) -> None:
    subset = np.array([0, 3, 9, 10, 20])
    assert sorted(seen(take(Stream(tiny, seed=0, batch=5, subset=subset), 0, 1))) == subset.tolist()
    assert sorted(seen(take(Stream(tiny, seed=0, batch=1, subset=subset), 5, 5))) == subset.tolist()
    with pytest.raises(UserError, match="no samples to read"):
        Stream(tiny, seed=0, batch=5, subset=subset[:0])


def test_a_batch_may_be_larger_than_the_data(tiny: Shards) -> None:
    (batch,) = take(Stream(tiny, seed=0, batch=50), 0, 1)
    assert sorted(np.bincount(batch.indices.numpy()).tolist()) == [2] * 13 + [3] * 8


def test_a_batch_survives_what_a_training_step_does_to_it(tiny: Shards) -> None:
    stream = Stream(tiny, seed=0, batch=21)
    (batch,) = take(stream, 0, 1)
    batch.images.zero_()
    (again,) = take(stream, 0, 1)
    assert np.array_equal(again.images.numpy(), tiny_images()[again.indices.numpy()])


# --- reading ahead


@pytest.mark.parametrize("window", ["1", "2", "5"])
def test_what_is_fetched_ahead_is_every_block_once_an_epoch_a_window_before_it_is_read(window: str) -> None:
    counts = np.array([40, 25, 60])
    order = Order(counts, counts * (stream_module.BLOCK_BYTES // 5), seed=4, window=window)  # blocks of five samples
    distance = int(window) * 5
    ahead = {start: order.ahead(start, start + 4).tolist() for start in range(0, 3 * 125, 4)}
    assert max(map(len, ahead.values())) <= 5  # a block at a time, as the stream goes on
    fetched = [index for found in ahead.values() for index in found]
    assert fetched[: 125 - distance] == list(dict.fromkeys(fetched[: 125 - distance]))
    assert sorted(fetched[125 - distance : 250 - distance]) == list(range(125))
    first_read = {index: place for place, index in reversed(list(enumerate(order.indices(np.arange(125)).tolist())))}
    for start, found in ahead.items():
        for index in found:
            if start + distance + 4 <= 125:
                assert start < first_read[index] < start + 2 * distance + 5


def test_nothing_is_fetched_ahead_where_a_window_is_the_whole_epoch() -> None:
    counts = np.array([40, 25])
    for window in ("all", "1000"):
        order = Order(counts, counts * (stream_module.BLOCK_BYTES // 5), seed=0, window=window)
        assert order.ahead(0, 64).tolist() == []


# --- damaged samples


@pytest.fixture
def damaged(tiny_directory: Path, tmp_path: Path) -> Shards:
    """Tiny shards in which samples 9 and 10 are no images."""
    shards = Shards(shutil.copytree(tiny_directory, tmp_path / "damaged"))
    for index in (9, 10):
        member = shards._members[index]
        path = Path(shards.directory) / shards.shard_names[member["shard"]]
        content = bytearray(path.read_bytes())
        content[int(member["image_offset"]) : int(member["image_offset"]) + 8] = b"no image"
        path.write_bytes(content)
    return Shards(shards.directory)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_is_fatal_and_named(damaged: Shards, workers: int) -> None:
    with pytest.raises(DamagedSample, match="000001/00000009|000002/00000010"):
        take(Stream(damaged, seed=0, batch=7, workers=workers), 0, 3)


def test_a_damaged_sample_is_replaced_by_the_next_readable_one(
    damaged: Shards, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = [take(Stream(damaged, seed=0, batch=7, damaged="replace", workers=n), 0, 6) for n in (0, 2)]
    for batches in runs:
        for epoch in (batches[:3], batches[3:]):
            assert sorted(seen(epoch)) == sorted([*range(9), 11, 11, *range(11, 21)])
        for batch in batches:
            assert np.array_equal(batch.images.numpy(), tiny_images()[batch.indices.numpy()])
    assert seen(runs[0]) == seen(runs[1])
    told = capfd.readouterr().err
    assert "000001/00000009" in told and "000002/00000010" in told and "replaced by the next sample" in told


def test_a_replacement_comes_from_the_subset(damaged: Shards) -> None:
    subset = np.array([2, 9, 10, 17])
    stream = Stream(damaged, seed=0, batch=4, damaged="replace", subset=subset)
    assert sorted(seen(take(stream, 0, 1))) == [2, 17, 17, 17]
    held_out = scan(damaged, 4, indices=np.array([17, 10]), damaged="replace")
    assert seen(list(held_out)) == [17, 17]


def test_nothing_readable_is_fatal(damaged: Shards) -> None:
    with pytest.raises(DamagedSample, match="cannot be read"):
        take(Stream(damaged, seed=0, batch=2, damaged="replace", subset=np.array([9, 10])), 0, 1)


# --- the finite stream


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 4, 6, 21, 50])
def test_a_scan_meets_every_sample_once_in_index_order(tiny: Shards, batch: int, world: int) -> None:
    ranks = [list(scan(tiny, batch, rank, world)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1  # so that collectives in the loop match
    together: Iterator[tuple[Batch, ...]] = zip(*ranks, strict=True)
    met = [index for parts in together for part in parts for index in part.indices.tolist()]
    assert met == list(range(21))
    for batches in ranks:
        for part in batches:
            assert part.images.shape == (len(part.indices), 1, 8, 8)
            assert np.array_equal(part.images.numpy(), tiny_images()[part.indices.numpy()])


def test_a_scan_of_chosen_samples_keeps_their_order(tiny: Shards) -> None:
    batches = list(scan(tiny, 2, indices=np.array([20, 3, 3])))
    assert [batch.indices.tolist() for batch in batches] == [[20, 3], [3]]
    assert [batch.position for batch in batches] == [0, 2]
