"""Random access to a directory of shards by sample index, local or remote."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from cluster_jobs.core.errors import DamagedSample, UserError
from cluster_jobs.data.images import to_array
from cluster_jobs.data.shard_writer import MEMBER, VERSION
from cluster_jobs.data.stores.base import BLOCK_BYTES, Store, child
from cluster_jobs.data.stores.open import open_store


class Shards:
    """Random access to a directory of shards by sample index, 0 ≤ index < ``count``.

    ``directory`` is a local path or a URL (see ``stores/base.py``).

    Raises:
        UserError: the directory is missing or holds no index, the index is damaged, or a shard is missing or truncated
            (of remote shards this shows when they are read).
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = str(directory)
        self.store: Store = open_store(self.directory)
        index = _read_index(self.directory, self.store)
        self.index: dict[str, Any] = index
        self.count: int = index["count"]
        self.classes: list[str] = index["classes"]
        self.height, self.width = _height_and_width(self.directory, index["size"])
        self.channels: int = 1 if index["mode"] == "L" else 3
        self.fingerprint: str = index["fingerprint"]
        self.shard_names: list[str] = [entry["name"] for entry in index["shards"]]
        self.shard_counts = np.array([entry["count"] for entry in index["shards"]], np.int64)
        self.shard_bytes = np.array([entry["bytes"] for entry in index["shards"]], np.int64)
        self.store.accept(index)
        self._members = self._map("index.bin", MEMBER)
        last = self._members[-1]
        self._keys = self._map("keys.bin", np.dtype(np.uint8), int(last["key_start"]) + int(last["key_size"]))

    def _map(self, name: str, dtype: np.dtype, count: int | None = None) -> np.ndarray:
        size = (self.count if count is None else count) * dtype.itemsize
        return np.memmap(self.store.file(name, size), dtype, "r")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every picture."""
        return self.channels, self.height, self.width

    @property
    def size(self) -> int:
        """The side of square pictures, in pixels. Raises UserError where they are not square."""
        self.check_square()
        return self.height

    def check_square(self) -> None:
        """Raises UserError where the pictures are not square, for whatever takes square ones alone."""
        if self.height != self.width:
            raise UserError(
                f"{self.directory}: pictures of {self.height} × {self.width} pixels (height × width), "
                "expected square ones here; non-square pictures are for simgan"
            )

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
        """The encoded image file of a sample, as stored in the shard."""
        member = self._members[index]
        return self._read(index, int(member["image_offset"]), int(member["image_size"]))

    def _read(self, index: int, offset: int, size: int) -> bytes:
        name = self.shard_names[self._members[index]["shard"]]
        content = self.store.read(name, offset, size)
        if len(content) != size:
            raise DamagedSample(
                f"{child(self.directory, name)}: sample {self.key(index)} ends early; was the shard truncated?"
            )
        return content

    def image(self, index: int) -> np.ndarray:
        """A sample's picture, uint8 of shape (channels, height, width); another size is resized and centre-cropped.

        Raises:
            DamagedSample: the bytes are no image.
        """
        try:
            with Image.open(io.BytesIO(self.encoded(index))) as picture:
                ImageOps.exif_transpose(picture, in_place=True)  # as cluster_jobs.pack reads a file
                return to_array(picture, (self.height, self.width), "L" if self.channels == 1 else "RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if isinstance(error, UserError):
                raise
            raise DamagedSample(f"{self.directory}: sample {self.key(index)} is no readable image ({error})") from error

    def prefetch(self, indices: np.ndarray) -> None:
        """Begins to fetch the pictures of samples (indices, int64) that will be read soon, where that takes long."""
        if not (self.store.remote and len(indices)):
            return
        members = self._members[indices]
        ends = members["image_offset"] + np.maximum(members["image_size"], 1) - 1
        shards = np.tile(members["shard"].astype(np.int64), 2)
        blocks = (np.concatenate([members["image_offset"], ends]) // BLOCK_BYTES).astype(np.int64)
        _, first = np.unique(np.stack([shards, blocks]), axis=1, return_index=True)
        first.sort()  # what is needed first is fetched first
        self.store.prefetch((self.shard_names[shards[i]], int(blocks[i])) for i in first)

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


def _height_and_width(directory: str, size: Any) -> tuple[int, int]:
    """(height, width) from an index's ``size``: one integer where square, else [height, width]."""
    sides = [size, size] if isinstance(size, int) else size
    if not (isinstance(sides, list) and len(sides) == 2 and all(type(side) is int and side > 0 for side in sides)):
        path = child(directory, "index.json")
        raise UserError(f"{path}: damaged index (size {size!r}, expected pixels or [height, width]); pack it again")
    return sides[0], sides[1]


def _read_index(directory: str, store: Store) -> dict[str, Any]:
    path = child(directory, "index.json")
    content = store.document("index.json")
    if content is None:
        raise UserError(f"{directory!r} holds no index.json, so it is no finished shard directory; {store.advice()}")
    try:
        index = json.loads(content)
        version = index["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged index ({error}); pack the data again") from error
    if version != VERSION:
        raise UserError(f"{path}: index version {version}, this program reads version {VERSION}")
    missing = {"count", "classes", "size", "mode", "fingerprint", "shards"} - set(index)
    if missing or not index["count"]:
        raise UserError(f"{path}: damaged index (no {', '.join(sorted(missing)) or 'samples'}); pack the data again")
    return index
