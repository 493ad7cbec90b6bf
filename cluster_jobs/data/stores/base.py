"""Where shards lie: in a local directory, or below a URL of an object store or web server.

``shards.py`` reads through the seam in this file, and knows no more of it.

A location is a string, a path or ``s3://``, ``gs://``, ``hf://``, ``http://`` or ``https://``: never make it a Path
before :func:`is_remote` has said no, because a Path turns ``s3://`` into ``s3:/``.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from cluster_jobs.core.errors import UnreadableShard, UserError

BLOCK_BYTES = 4 << 20  # what a remote store reads at a time, and about what the stream's order keeps together
OPEN_FILES = 256  # a process may hold 1,024 by default, a data set has more shards than that

Block = tuple[str, int]  # shard, and which of its BLOCK_BYTES long pieces


class Store(Protocol):
    """The files of one shard directory, wherever they lie."""

    remote: bool  # whether reading ahead pays off

    def read(self, name: str, offset: int, size: int) -> bytes:
        """``size`` bytes of shard ``name`` from ``offset``; fewer only at the end of the shard.

        Raises:
            UnreadableShard: the shard cannot be read, or not any more.
        """

    def document(self, name: str) -> bytes | None:
        """A small file beside the shards; None where there is none."""

    def file(self, name: str, size: int) -> Path:
        """A local file with the content of ``name``, to be mapped into memory.

        Raises:
            UserError: it is missing, or has not ``size`` bytes.
        """

    def accept(self, index: dict[str, Any]) -> None:
        """Takes the index's word for which shards there are, as far as looking at every one would cost too much.

        Raises:
            UserError: a shard is missing, or its size is another one.
        """

    def prefetch(self, blocks: Iterable[Block]) -> None:
        """Begins to fetch what will be read soon. Returns at once."""

    def advice(self) -> str:
        """What a user may have meant, where there is no index."""


def is_remote(location: str) -> bool:
    """Whether a location is a URL rather than a local path."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", location) is not None


def child(location: str, name: str) -> str:
    """The location of what is called ``name`` below another location. The query of a web address stays at its end."""
    if not is_remote(location):
        return os.path.join(location, name)
    if not location.startswith(("http://", "https://")):
        return f"{location.rstrip('/')}/{name}"
    address, mark, query = location.partition("?")
    return f"{address.rstrip('/')}/{quote(name)}{mark}{query}"


def open_store(location: str) -> Store:
    """The store of a shard directory.

    Raises:
        UserError: a scheme that nothing here reads, a package that is missing, a server that cannot be reached.
    """
    if not is_remote(location):
        return LocalStore(Path(location))
    from cluster_jobs.data.stores.remote import RemoteStore  # with fsspec, which local paths do without

    return RemoteStore(location)


def damaged_index(where: str | Path, size: int) -> UserError:
    return UserError(f"{where}: damaged index, expected {size} bytes; pack the data again")


class LocalStore:
    """Shards on a local or shared file system, read by ``pread`` (no file position, so forked readers may share it)."""

    remote = False

    def __init__(self, directory: Path) -> None:
        self._files: dict[str, int] = {}
        if not directory.is_dir():
            raise UserError(f"data directory {str(directory)!r} does not exist")
        self.directory = directory

    def read(self, name: str, offset: int, size: int) -> bytes:
        descriptor = self._files.pop(name, None)
        try:
            if descriptor is None:
                if len(self._files) >= OPEN_FILES:
                    os.close(self._files.pop(next(iter(self._files))))
                descriptor = os.open(self.directory / name, os.O_RDONLY)
            self._files[name] = descriptor  # last: the first is the one that was not read for longest
            return os.pread(descriptor, size, offset)
        except OSError as error:
            raise UnreadableShard(f"{self.directory / name}: cannot read the shard ({error.strerror})") from error

    def document(self, name: str) -> bytes | None:
        path = self.directory / name
        return path.read_bytes() if path.is_file() else None

    def file(self, name: str, size: int) -> Path:
        path = self.directory / name
        if not path.is_file() or path.stat().st_size != size:
            raise damaged_index(path, size)
        return path

    def accept(self, index: dict[str, Any]) -> None:
        for shard in index["shards"]:
            path, expected = self.directory / shard["name"], shard["bytes"]
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                raise UserError(f"{path}: the index names this shard, but it is missing") from None
            if size != expected:
                raise UserError(f"{path}: truncated or changed shard ({size} bytes, the index says {expected})")

    def prefetch(self, blocks: Iterable[Block]) -> None:
        """Nothing: the operating system reads ahead."""

    def advice(self) -> str:
        tars = sorted(self.directory.glob("*.tar"))
        if tars:
            return f"it holds {len(tars)} tars: index them with cluster_jobs.pack source=webdataset path=…"
        if (self.directory / "train" / "index.json").is_file():
            return f"did you mean {str(self.directory / 'train')!r}?"
        return "make it with python -m cluster_jobs.pack"

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "_files": {}}  # descriptors do not travel to reader processes

    def __del__(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
