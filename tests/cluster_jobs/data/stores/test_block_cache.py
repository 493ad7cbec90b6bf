import contextlib
import os
import resource
import threading
import time
from pathlib import Path

import pytest

from cluster_jobs.core.errors import UnreadableShard, UserError
from cluster_jobs.data.stores import block_cache
from cluster_jobs.data.stores.block_cache import FILES, TOTAL, BlockCache


def put(cache: BlockCache, name: str, content: bytes, used: float | None = None) -> str:
    path = cache.path("set", name)
    with cache.writing(path, len(content)) as descriptor:
        os.pwrite(descriptor, content, 0)
    if used is not None:
        os.utime(path, (used, used))
    return path


def held(cache: BlockCache) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (cache.directory / FILES).glob("*/*")}


def held_at_once(cache: BlockCache) -> int:
    """Bytes at one moment: nobody makes room or takes it meanwhile, and a file that is just renamed counts once."""
    sizes = {}
    with cache._locked(TOTAL):
        for path in (cache.directory / FILES).glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def test_what_is_written_is_read_by_range(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "a b", 100)
    path = put(cache, "x", b"0123456789")
    assert cache.read(path, 3, 4) == b"3456" and cache.touch(path)
    assert cache.read(cache.path("set", "y"), 0, 1) is None and not cache.touch(cache.path("set", "y"))


def test_a_file_that_is_shorter_than_it_should_be_is_dropped(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 100)
    path = put(cache, "x", b"0123")
    assert cache.read(path, 2, 4) is None and not os.path.exists(path)


def test_the_least_recently_used_goes_first_and_the_bound_holds(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 100)
    for number in range(10):
        put(cache, str(number), bytes(10), used=1000 + number)
    assert len(held(cache)) == 10
    assert cache.touch(cache.path("set", "0"))  # used now: 1 is the oldest
    put(cache, "new", bytes(10))
    assert "0" in held(cache) and "1" not in held(cache) and "new" in held(cache)
    assert sum(held(cache).values()) <= 100


def test_the_bound_holds_while_many_threads_write(tmp_path: Path) -> None:
    cache, most = BlockCache(tmp_path, 1000), 0
    threads = [
        threading.Thread(target=lambda first=first: [put(cache, f"{first}-{i}", bytes(90)) for i in range(20)])
        for first in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, held_at_once(cache))
    assert 0 < most <= 1000 and 0 < sum(held(cache).values()) <= 1000


def test_a_file_waits_for_room_that_others_are_writing_to(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 100)
    waiting = threading.Thread(target=put, args=(cache, "second", bytes(60)))
    with cache.writing(cache.path("set", "first"), 60):
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive() and held_at_once(cache) == 60
    waiting.join(120)
    assert held(cache) == {"second": 60}


def test_the_count_is_made_anew_by_a_cache_that_finds_files(tmp_path: Path) -> None:
    put(BlockCache(tmp_path, 1000), "old", bytes(60), used=1)
    (tmp_path / "total").unlink()
    small = BlockCache(tmp_path, 100)
    put(small, "new", bytes(60))
    assert held(small) == {"new": 60}


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 100)
    with pytest.raises(KeyboardInterrupt), cache.writing(cache.path("set", "x"), 10) as descriptor:
        os.pwrite(descriptor, b"half", 0)
        raise KeyboardInterrupt
    assert held(cache) == {}


def test_what_a_killed_writer_left_goes_when_it_is_old(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 100)
    put(cache, "x", bytes(10))
    old, young = (Path(cache.path("set", f".{name}.tmp")) for name in ("old", "young"))
    for path, age in ((old, block_cache.ABANDONED + 60), (young, 5)):
        path.write_bytes(bytes(30))
        os.utime(path, (time.time() - age,) * 2)
    (tmp_path / "total").unlink()
    put(cache, "y", bytes(50))
    assert not old.exists() and young.exists()


def test_a_claim_is_held_by_one_and_freed_by_a_fork_that_outlives_it(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 100)
    path, order = cache.path("set", "x"), []

    def second() -> None:
        with cache.claim(path):
            order.append("second")

    thread = threading.Thread(target=second)
    with cache.claim(path):
        thread.start()
        time.sleep(0.1)
        order.append("first")
        child = os.fork()
        if child == 0:
            time.sleep(300)  # with a copy of the lock's descriptor
            os._exit(0)
    thread.join(120)
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert order == ["first", "second"]


def test_a_file_larger_than_the_cache_and_a_full_or_forbidden_directory_are_one_line(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "cache", 100)
    with pytest.raises(UnreadableShard, match=r"a file of 101 bytes is larger than the whole cache \(SHARD_CACHE_"):
        put(cache, "x", bytes(101))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))  # as a full disk or a quota would
    try:
        with pytest.raises(UnreadableShard, match=r"SHARD_CACHE_DIR\): cannot write there \(File too large\)"):
            put(cache, "x", bytes(10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert held(cache) == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"SHARD_CACHE_DIR\): cannot write there \(Not a directory\)"):
        BlockCache(tmp_path / "file" / "cache", 100)


@pytest.mark.parametrize("text", ["0", "-5", "20GB"])
def test_a_wrong_bound_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARD_CACHE_BYTES", text)
    with pytest.raises(UserError, match=f"SHARD_CACHE_BYTES={text} in the environment: expected a positive number"):
        BlockCache.from_environment()
