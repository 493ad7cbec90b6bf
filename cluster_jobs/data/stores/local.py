"""Shards in a directory of a local or shared file system."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cluster_jobs.core.errors import UnreadableShard, UserError
from cluster_jobs.data.stores.base import ShardBlock, damaged_index

OPEN_FILES = 256  # a process may hold 1,024 by default, a data set has more shards than that


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
            self._files[name] = descriptor  # at the end: the first one is the least recently used
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

    def prefetch(self, blocks: Iterable[ShardBlock]) -> None:
        """Nothing: the operating system reads ahead."""

    def advice(self) -> str:
        tars = sorted(self.directory.glob("*.tar"))
        if tars:
            return f"it holds {len(tars)} tars: index them with cluster_jobs.pack source=webdataset path=…"
        if (self.directory / "train" / "index.json").is_file():
            return f"did you mean {str(self.directory / 'train')!r}?"
        return "make it with python -m cluster_jobs.pack"

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "_files": {}}  # descriptors cannot be sent to reader processes

    def __del__(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
