"""Pools in the making: how many samples a shard holds, who writes which, and the end that makes them valid shards."""

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.data import pool
from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, write_shard
from cluster_jobs.data.shards import Shards


class Rank:
    """One of several ranks, each a thread."""

    def __init__(self, rank: int, everybody: threading.Barrier) -> None:
        self.rank, self.world, self.everybody = rank, everybody.parties, everybody
        self.shown: list[Any] = []

    def barrier(self) -> None:
        self.everybody.wait()

    def track(self, items: Iterable[Any], total: int, unit: str, what: str = "", weight: int = 1) -> Iterator[Any]:
        self.shown = [total, unit, what, weight]
        return iter(items)


def test_a_pool_is_cut_into_full_shards_and_a_last_one_with_the_rest() -> None:
    assert pool.shard_sizes(2150) == [1000, 1000, 150] and pool.shard_sizes(1000) == [1000]
    assert [pool.shard_samples(number, 2150) for number in range(3)] == [
        range(1000),
        range(1000, 2000),
        range(2000, 2150),
    ]


def test_ranks_share_out_what_is_missing_when_they_start_and_write_nothing_twice() -> None:
    """Rank 0 writes all of its shards before rank 1 writes one, and neither's share changes by it."""
    written, done, everybody = {0: [], 1: []}, {2, 5}, threading.Barrier(2)  # type: ignore[var-annotated]
    ranks = [Rank(number, everybody) for number in (0, 1)]
    first_is_through = threading.Event()

    def work(rank: Rank) -> None:
        def write(number: int) -> None:
            if rank.rank:
                assert first_is_through.wait(60)
            written[rank.rank].append(number)
            done.add(number)

        pool.write_missing(
            range(1, 8), lambda number: number in done, write, sizes=[10] * 7 + [3], job=rank, what="making"
        )
        first_is_through.set()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert written == {0: [1, 4, 7], 1: [3, 6]}
    assert ranks[0].shown == [43, "images", "making", 20]


def write_pool(directory: Path) -> None:
    images = np.arange(3 * 1 * 4 * 6, dtype=np.uint8).reshape(3, 1, 4, 6)
    write_shard(directory, 0, [Sample(f"{i:08d}", encode_png(image), label=i % 2) for i, image in enumerate(images)])
    pool.finish_pool(directory, 1, ["a", "b"], (1, 4, 6))


def test_a_finished_pool_is_a_directory_of_shards(tmp_path: Path) -> None:
    write_pool(tmp_path)
    shards = Shards(tmp_path)
    assert shards.shape == (1, 4, 6) and shards.classes == ["a", "b"] and shards.hidden_labels().tolist() == [0, 1, 0]


def test_shards_say_what_made_them_or_are_no_pool(tmp_path: Path) -> None:
    write_pool(tmp_path)
    assert pool.read_pool(Shards(tmp_path)) is None
    (tmp_path / "pool.json").write_text('{"made_by": "a test"}')
    assert pool.read_pool(Shards(tmp_path)) == {"made_by": "a test"}
    (tmp_path / "pool.json").write_text("{")
    with pytest.raises(UserError, match=r"pool\.json: unreadable"):
        pool.read_pool(Shards(tmp_path))
