"""Random access to a directory of shards by sample index, through one small seam that knows where shards lie."""

import io
import json
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from cluster_jobs.errors import DamagedSample, UserError
from cluster_jobs.images import to_array
from cluster_jobs.shard_writer import MEMBER, VERSION

OPEN_FILES = 256  # a process may hold 1,024 by default, a data set has more shards than that


class Store(Protocol):
    """The seam behind which shards may lie on a disk or, later, in an object store."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        """``size`` bytes of shard ``name`` from ``offset``; fewer only at the end of the shard."""

    def size(self, name: str) -> int:
        """Bytes of shard ``name``. Raises FileNotFoundError."""


class LocalStore:
    """Shards on a local or shared file system, read by ``pread`` (no file position, so forked readers may share it)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, int] = {}

    def read(self, name: str, offset: int, size: int) -> bytes:
        descriptor = self._files.pop(name, None)
        if descriptor is None:
            if len(self._files) >= OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            descriptor = os.open(self.directory / name, os.O_RDONLY)
        self._files[name] = descriptor  # last: the first is the one that was not read for longest
        return os.pread(descriptor, size, offset)

    def size(self, name: str) -> int:
        return (self.directory / name).stat().st_size

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "_files": {}}  # descriptors do not travel to reader processes

    def __del__(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)


class Shards:
    """Random access to a directory of shards by sample index, 0 ≤ index < ``count``.

    Raises:
        UserError: the directory is missing or holds no index, the index is damaged, or a shard is missing or truncated.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        index = _read_index(self.directory)
        self.index: dict[str, Any] = index
        self.count: int = index["count"]
        self.classes: list[str] = index["classes"]
        self.size: int = index["size"]
        self.channels: int = 1 if index["mode"] == "L" else 3
        self.fingerprint: str = index["fingerprint"]
        self.shard_names: list[str] = [entry["name"] for entry in index["shards"]]
        self.shard_counts = np.array([entry["count"] for entry in index["shards"]], np.int64)
        self.shard_bytes = np.array([entry["bytes"] for entry in index["shards"]], np.int64)
        self.store: Store = LocalStore(self.directory)
        for name, expected in zip(self.shard_names, self.shard_bytes.tolist(), strict=True):
            self._check_shard(name, expected)
        self._members = self._map("index.bin", MEMBER)
        last = self._members[-1]
        self._keys = self._map("keys.bin", np.dtype(np.uint8), int(last["key_start"]) + int(last["key_size"]))

    def _check_shard(self, name: str, expected: int) -> None:
        try:
            size = self.store.size(name)
        except FileNotFoundError:
            raise UserError(f"{self.directory / name}: the index names this shard, but it is missing") from None
        if size != expected:
            raise UserError(
                f"{self.directory / name}: truncated or changed shard ({size} bytes, the index says {expected})"
            )

    def _map(self, name: str, dtype: np.dtype, count: int | None = None) -> np.ndarray:
        path = self.directory / name
        expected = (self.count if count is None else count) * dtype.itemsize
        if not path.is_file() or path.stat().st_size != expected:
            raise UserError(f"{path}: damaged index, expected {expected} bytes; pack the data again")
        return np.memmap(path, dtype, "r")

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        """A sample's identity ``SHARD/KEY``, for example ``000003/00012345``."""
        member = self._members[index]
        start, size = int(member["key_start"]), int(member["key_size"])
        return f"{Path(self.shard_names[member['shard']]).stem}/{self._keys[start : start + size].tobytes().decode()}"

    def keys(self, start: int = 0, stop: int | None = None) -> list[str]:
        """The identities of samples ``start ≤ index < stop``, in index order."""
        return [self.key(index) for index in range(start, self.count if stop is None else stop)]

    def encoded(self, index: int) -> bytes:
        """The image file of a sample as it lies in the shard."""
        member = self._members[index]
        return self._read(index, int(member["image_offset"]), int(member["image_size"]))

    def _read(self, index: int, offset: int, size: int) -> bytes:
        name = self.shard_names[self._members[index]["shard"]]
        content = self.store.read(name, offset, size)
        if len(content) != size:
            raise DamagedSample(
                f"{self.directory / name}: sample {self.key(index)} ends early; was the shard truncated?"
            )
        return content

    def image(self, index: int) -> np.ndarray:
        """A sample's picture, uint8 of shape (channels, size, size); another size is resized and centre-cropped.

        Raises:
            DamagedSample: the bytes are no image.
        """
        try:
            with Image.open(io.BytesIO(self.encoded(index))) as picture:
                return to_array(picture, self.size, "L" if self.channels == 1 else "RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if isinstance(error, UserError):
                raise
            raise DamagedSample(f"{self.directory}: sample {self.key(index)} is no readable image ({error})") from error

    def annotation(self, index: int) -> dict[str, Any] | None:
        """A sample's ``.json``, or None."""
        member = self._members[index]
        if not member["annotation_size"]:
            return None
        content = self._read(index, int(member["annotation_offset"]), int(member["annotation_size"]))
        try:
            return json.loads(content)
        except ValueError as error:
            raise DamagedSample(f"{self.directory}: {self.key(index)}.json is not JSON ({error})") from error

    def hidden_labels(self) -> np.ndarray:
        """The ``.cls`` of every sample, int32 of shape (count,), -1 where there is none.

        Only for revealing a budget and for scoring. Training takes its labels from a label table.
        """
        return self._map("labels.bin", np.dtype("<i4"))


def _read_index(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise UserError(f"data directory {str(directory)!r} does not exist")
    path = directory / "index.json"
    if not path.is_file():
        tars = sorted(directory.glob("*.tar"))
        if tars:
            advice = f"it holds {len(tars)} tars: index them with cluster_jobs.pack source=webdataset path=…"
        elif (directory / "train" / "index.json").is_file():
            advice = f"did you mean {str(directory / 'train')!r}?"
        else:
            advice = "make it with python -m cluster_jobs.pack"
        raise UserError(f"{str(directory)!r} holds no index.json, so it is no finished shard directory; {advice}")
    try:
        index = json.loads(path.read_text())
        version = index["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged index ({error}); pack the data again") from error
    if version != VERSION:
        raise UserError(f"{path}: index version {version}, this program reads version {VERSION}")
    missing = {"count", "classes", "size", "mode", "fingerprint", "shards"} - set(index)
    if missing or not index["count"]:
        raise UserError(f"{path}: damaged index (no {', '.join(sorted(missing)) or 'samples'}); pack the data again")
    return index
