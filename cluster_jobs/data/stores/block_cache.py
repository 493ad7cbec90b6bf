"""A bounded cache of files, shared by all processes of a machine, with least-recently-used eviction.

Files appear complete, under a lock that keeps two processes from fetching the same one. Locks are those of ``flock``:
the system releases them when the process that held them ends, even if it is killed.
"""

import contextlib
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cluster_jobs.core.errors import UnreadableShard, UserError

BOUND = 20 << 30
FILES, LOCKS, TOTAL, UNFINISHED = "files", "locks", "total", ".tmp"
PAUSE = 0.01  # seconds between two attempts to reserve space
ABANDONED = 600.0  # seconds after which an unfinished file that nobody writes to was left by a killed process


class BlockCache:
    """Files of at most ``bound`` bytes in all below ``directory``; a file's path is ``cache.path(...)``.

    Raises:
        UserError: the directory cannot be made or written.
    """

    def __init__(self, directory: Path, bound: int) -> None:
        self.directory, self.bound = directory, bound
        try:
            (directory / LOCKS).mkdir(parents=True, exist_ok=True, mode=0o700)
            (directory / FILES).mkdir(exist_ok=True, mode=0o700)
            with self._locked(TOTAL):
                pass
        except OSError as error:
            raise UserError(f"{_where(directory)}: cannot write there ({error.strerror})") from error

    @classmethod
    def from_environment(cls) -> "BlockCache":
        """The cache at ``SHARD_CACHE_DIR`` (by default in the user's cache directory) of ``SHARD_CACHE_BYTES``."""
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        directory = os.environ.get("SHARD_CACHE_DIR") or Path(home) / "label-efficient-gan" / "shards"
        text = os.environ.get("SHARD_CACHE_BYTES", str(BOUND))
        if not (text.isdecimal() and int(text) > 0):
            raise UserError(f"SHARD_CACHE_BYTES={text} in the environment: expected a positive number of bytes")
        return cls(Path(directory).absolute(), int(text))

    def path(self, folder: str, name: str) -> str:
        """The path of a cached file, which need not exist. Text, as one is made for every sample that is read."""
        return f"{self.directory}/{FILES}/{folder}/{name}"

    def touch(self, path: str) -> bool:
        """Whether a file exists; marks it as just used."""
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def read(self, path: str, offset: int, size: int) -> bytes | None:
        """Exactly ``size`` bytes of a file, None where it is not there (any more)."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            content = os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)
        if len(content) < size:  # not written by us
            Path(path).unlink(missing_ok=True)
            return None
        return content

    @contextlib.contextmanager
    def claim(self, path: str) -> Iterator[None]:
        """Holds the right to write a file; others wait. Files share a few hundred locks."""
        name = hashlib.blake2b(os.fsencode(path), digest_size=1).hexdigest()
        with self._locked(f"{LOCKS}/{name}"):
            yield

    @contextlib.contextmanager
    def writing(self, path: str, size: int) -> Iterator[int]:
        """A descriptor to write ``size`` bytes to; the file appears complete when the block ends without an error.

        Raises:
            UnreadableShard: it is larger than the bound, or cannot be written.
        """
        folder, name = os.path.split(path)
        temporary = Path(folder, f".{name}.{os.getpid()}.{threading.get_native_id()}{UNFINISHED}")
        try:
            descriptor = self._reserve(temporary, size)
            try:
                yield descriptor
                os.fdatasync(descriptor)  # or a machine that loses power keeps a file of zeros
            finally:
                os.close(descriptor)
            with self._locked(TOTAL):  # a count of the files must see it under one of its two names
                temporary.replace(path)
        except OSError as error:
            raise UnreadableShard(f"{_where(self.directory)}: cannot write there ({error.strerror})") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _reserve(self, temporary: Path, size: int) -> int:
        """Reserves space by an empty file of the full size, which every count includes; evicts others where needed."""
        if size > self.bound:
            raise UnreadableShard(
                f"{_where(self.directory)}: a file of {size} bytes is larger than the whole cache (SHARD_CACHE_BYTES="
                f"{self.bound})"
            )
        while True:
            with self._locked(TOTAL) as descriptor:
                text = os.pread(descriptor, 32, 0)
                total = int(text) if text else self._evict(self.bound)
                if total + size > self.bound:
                    total = self._evict(max(self.bound * 9 // 10 - size, 0))  # a tenth at once, as counting is slow
                if total + size <= self.bound:
                    os.pwrite(descriptor, b"%-32d" % (total + size), 0)
                    temporary.parent.mkdir(exist_ok=True, mode=0o700)
                    target = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
                    os.truncate(target, size)
                    return target
                os.pwrite(descriptor, b"%-32d" % total, 0)
            time.sleep(PAUSE)  # all space is taken by files that others are writing

    def _evict(self, most: int) -> int:
        """Removes the least recently used files until at most ``most`` bytes are left; returns the bytes left."""
        files = []
        for path in (self.directory / FILES).glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for used, size, path in sorted(files):
            if total <= most:
                break
            if path.suffix == UNFINISHED and time.time() - used < ABANDONED:
                continue
            path.unlink(missing_ok=True)
            total -= size
        return total

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[int]:
        descriptor = os.open(self.directory / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            fcntl.flock(
                descriptor, fcntl.LOCK_UN
            )  # explicitly: a process forked meanwhile has a copy of the descriptor
            os.close(descriptor)


def _where(directory: Path) -> str:
    return f"the cache of remote shards, {str(directory)!r} (SHARD_CACHE_DIR)"
