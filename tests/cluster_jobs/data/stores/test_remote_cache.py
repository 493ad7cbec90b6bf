"""Which blocks of remote shards are fetched, when, and which come from the cache instead."""

import fcntl
import itertools
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores.block_cache import FILES, TOTAL
from cluster_jobs.data.stream import Stream
from tests.cluster_jobs.data.toy_reader import READER
from tests.cluster_jobs.tiny import BLOCK, tiny_images, write_tiny_shards
from tests.processes import Forked, fork
from tests.servers import Server, files, serving

pytestmark = pytest.mark.usefixtures("cache")


def test_opening_many_shards_asks_for_few_files(tmp_path: Path) -> None:
    directory = write_tiny_shards(tmp_path / "www", (1,) * 40)
    with serving(files(directory)) as server:
        Shards(server.url)
        assert server.requests.total() <= 7 and not any(".tar" in name for name in server.requests)


def test_every_block_is_fetched_once_and_the_next_window_before_it_is_read(tiny_directory: Path, tiny: Shards) -> None:
    with serving(files(tiny_directory)) as server:
        reader = Stream(Shards(server.url), seed=0, batch=2, window="2")
        batches = reader.batches(0)
        next(batches)
        members = tiny._members[reader.order.ahead(0, 2)]
        starts = members["image_offset"] // BLOCK * BLOCK
        wanted = [
            f"GET /{tiny.shard_names[shard]} bytes={start}-"
            for shard, start in zip(members["shard"], starts, strict=True)
        ]
        deadline = time.monotonic() + 120
        while not all(any(name.startswith(one) for name in list(server.requests)) for one in wanted):
            assert wanted and time.monotonic() < deadline  # nothing else is read meanwhile
            time.sleep(0.01)
        list(itertools.islice(batches, 40))
        assert max(count for name, count in server.requests.items() if ".tar" in name) == 1


def blocks_of(server: Server) -> int:
    return sum(".tar" in name for name in server.requests)


def test_a_second_reading_asks_for_no_block_again(tiny_directory: Path) -> None:
    with serving(files(tiny_directory)) as server:
        first = [Shards(server.url).image(i) for i in range(21)]
        before = blocks_of(server)
        again = Shards(server.url)
        assert all(np.array_equal(again.image(i), first[i]) for i in range(21))
        assert blocks_of(server) == before == sum(server.requests[n] for n in server.requests if ".tar" in n)


def test_the_cache_stays_within_its_bound_and_the_pictures_right(
    tiny_directory: Path, tiny: Shards, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = 4 * BLOCK + 2000  # the index takes some of it; the tars are larger
    assert sum(path.stat().st_size for path in tiny_directory.glob("*.tar")) > 2 * bound
    monkeypatch.setenv("SHARD_CACHE_BYTES", str(bound))
    with serving(files(tiny_directory)) as server:
        reader = Stream(Shards(server.url), seed=0, batch=2, window="2")
        local = Stream(tiny, seed=0, batch=2, window="2")
        for ours, theirs in itertools.islice(zip(reader.batches(0), local.batches(0), strict=True), 40):
            assert np.array_equal(ours.images, theirs.images)
            assert 0 < size_of(cache) <= bound


def size_of(cache: Path) -> int:
    """The bytes of the cached files, counted while none comes, goes or changes its name."""
    with open(cache / TOTAL, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return sum(path.stat().st_size for path in (cache / FILES).rglob("*") if path.is_file())


def test_data_that_were_packed_anew_are_never_read_from_the_cache(tmp_path: Path) -> None:
    directory = tmp_path / "www"
    with serving(files(directory)) as server:
        for shift in (0, 1):
            write_tiny_shards(directory, (3, 2))
            for number in (0, 1):  # the same keys and sizes, other pictures and labels
                images = np.roll(tiny_images(5), shift, axis=0)
                chosen = range(3) if number == 0 else range(3, 5)
                samples = [Sample(f"{i:08d}", encode_png(images[i]), label=(i + shift) % 3) for i in chosen]
                write_shard(directory, number, samples)
            finish_index(directory, 2, classes=["a", "b", "c"], size=8, mode="L")
            shards = Shards(server.url)
            assert all(np.array_equal(shards.image(i), images[i]) for i in range(5))
            assert shards.hidden_labels().tolist() == [(i + shift) % 3 for i in range(5)]


def test_labels_alone_that_changed_are_seen(tmp_path: Path) -> None:
    directory = tmp_path / "www"
    with serving(files(directory)) as server:
        for label in (1, 2):
            write_shard(directory, 0, [Sample("0", encode_png(tiny_images()[0]), label=label)])
            finish_index(directory, 1, classes=["a", "b", "c"], size=8, mode="L")
            assert Shards(server.url).hidden_labels().tolist() == [label]


def test_a_cached_file_that_was_damaged_is_fetched_again(tiny_directory: Path, tiny: Shards, cache: Path) -> None:
    with serving(files(tiny_directory)) as server:
        Shards(server.url).image(0)
        for path in (cache / FILES).glob("*/*"):
            path.write_bytes(path.read_bytes()[:10])
        shards = Shards(server.url)
        assert shards.keys() == tiny.keys() and np.array_equal(shards.image(0), tiny.image(0))


@pytest.mark.slow
def test_two_processes_share_a_cache_and_a_killed_one_leaves_it_usable(
    tiny_directory: Path, tmp_path: Path, cache: Path
) -> None:
    truth = fork(tmp_path / "local", READER, f"data={tiny_directory}")
    with serving(files(tiny_directory), ["stalled"], times=9, only="GET .*tar") as server:
        victim = Forked(tmp_path / "victim", READER, f"data={server.url}")
        while not server.met:
            time.sleep(0.01)
        os.kill(victim.process.pid or 0, signal.SIGKILL)
        assert victim.ended().code == -signal.SIGKILL
    with serving(files(tiny_directory)) as server:
        pair = [Forked(tmp_path / f"log{i}", READER, f"data={server.url}") for i in (0, 1)]
        ended = [process.ended() for process in pair]
        assert [one.code for one in ended] == [0, 0], ended
        assert {one.output for one in ended} == {truth.output}
        assert {count for name, count in server.requests.items() if ".tar" in name} == {1}
