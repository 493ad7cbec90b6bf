"""Makes the shards of one split: images of a source are written as PNGs, other people's tars are indexed in place.

A sample's key is its number in the split; a file that is no picture leaves a gap. If a shard contains such files, it is
written only when the caller asks again with those files left out, so that a repaired file is read again.
"""

import contextlib
import hashlib
import math
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, Protocol

import numpy as np

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import Size, encode_png
from cluster_jobs.data.shard_writer import (
    IMAGE_EXTENSIONS,
    PARTS,
    Sample,
    finish_index,
    index_shard,
    sample_key,
    shard_done,
    shard_name,
    write_index_part,
    write_shard,
)
from cluster_jobs.packing.sources import NoImage, Source, all_grey, decode, printable, split_directories

Bad = dict[str, str]  # {"file": name, "reason": why it is no picture}


class ShardMaker(Protocol):
    """Makes one finished directory of one split, shard by shard."""

    directory: Path
    unit: ClassVar[str]  # what progress counts

    def digest(self) -> str:
        """Changes with the samples; a file that changes in place may change ``stamp`` alone."""

    def stamp(self, number: int) -> str:
        """Changes when a file that shard ``number`` is made from changes in place."""

    def shards(self) -> int: ...

    def work(self, number: int) -> int:
        """Units of work of shard ``number``, for the progress bar."""

    def done(self, number: int) -> bool: ...

    def make(self, number: int, left_out: frozenset[str]) -> list[Bad]:
        """Makes shard ``number`` without ``left_out``. If other files are no pictures, only returns these."""

    def finish(self, left_out: int) -> None:
        """Writes the index, which makes the directory valid; ``left_out`` files are missing from it."""

    def finished(self) -> bool: ...

    def discard(self) -> None:
        """Removes unfinished work, never files that this command did not write."""


def _stamp(paths: Iterable[Path]) -> str:
    """A digest of the sizes and times of files; a missing file or a broken link counts too."""
    states: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            status = os.stat(path)
            states.append((status.st_size, status.st_mtime_ns))
        except OSError:  # it is named when it is read
            states.append(None)
    return hashlib.blake2b(repr(states).encode(), digest_size=8).hexdigest()


class _BadFiles(Exception):
    """Stops the writing of a shard in which bad files were found."""


@dataclass
class Repack:
    """Writes a source as shards of ``shard_samples`` PNGs."""

    unit: ClassVar[str] = "images"

    source: Source
    directory: Path
    size: Size
    shard_samples: int

    def digest(self) -> str:
        return f"{self.source.mode} {self.source.digest()}"

    def stamp(self, number: int) -> str:
        return _stamp(path for index in self._range(number) for path in self.source.paths(index))

    def shards(self) -> int:
        return math.ceil(len(self.source) / self.shard_samples)

    def _range(self, number: int) -> range:
        start = number * self.shard_samples
        return range(start, min(start + self.shard_samples, len(self.source)))

    def work(self, number: int) -> int:
        return len(self._range(number))

    def done(self, number: int) -> bool:
        return shard_done(self.directory, number)

    def make(self, number: int, left_out: frozenset[str]) -> list[Bad]:
        if all(self.source.name(index) in left_out for index in self._range(number)):
            raise UserError(
                f"all {len(self._range(number))} files of shard {shard_name(number)} are no pictures "
                f"({self.source.name(self._range(number)[0])!r} …); remove them from the source"
            )
        bad: list[Bad] = []
        with contextlib.suppress(_BadFiles):
            write_shard(self.directory, number, self._encoded(number, left_out, bad))
        return bad

    def _encoded(self, number: int, left_out: frozenset[str], bad: list[Bad]) -> Iterator[Sample]:
        for index in self._range(number):
            name = self.source.name(index)
            if name in left_out:
                continue
            try:
                image, label, annotation = self.source.read(index)
            except NoImage as error:
                bad.append({"file": name, "reason": str(error)})
                continue
            if not bad:
                yield Sample(sample_key(index), encode_png(image), "png", label, annotation)
        if bad:
            raise _BadFiles

    def finish(self, left_out: int) -> None:
        source = self.source
        finish_index(
            self.directory,
            self.shards(),
            classes=source.classes,
            size=self.size,
            mode=source.mode,
            extra={"left_out": left_out},
        )

    def finished(self) -> bool:
        return (self.directory / "index.json").is_file()

    def discard(self) -> None:
        shutil.rmtree(self.directory / PARTS, ignore_errors=True)
        for path in self.directory.glob("[0-9][0-9][0-9][0-9][0-9][0-9].tar"):
            path.unlink()


@dataclass
class Tars:
    """Shards of one split that somebody else wrote, in natural order (``x-2.tar`` before ``x-10.tar``)."""

    directory: Path
    names: list[str]
    mode: str

    def digest(self) -> str:
        sizes = ((name, (self.directory / name).stat().st_size) for name in self.names)
        return hashlib.sha256(repr([(printable(name), size) for name, size in sizes]).encode()).hexdigest()


def webdataset(path: Path, mode: str) -> dict[str, Tars]:
    """The tars directly in ``path``, or in its ``train/`` and ``test/`` as for :func:`folder`."""
    splits: dict[str, Tars] = {}
    for split, prefix in split_directories(path).items():
        names = [entry.name for entry in os.scandir(path / prefix) if entry.is_file() and entry.name.endswith(".tar")]
        names.sort(key=lambda name: [(text, int(part or 0)) for text, part in re.findall(r"(\D*)(\d*)", name)])
        if not names:
            raise UserError(f"path={str(path / prefix)!r} holds no .tar files; expected the shards of a WebDataset")
        splits[split] = Tars(path / prefix, names, mode)
    if mode == "auto":
        pictures = (
            file for tars in splits.values() for name in tars.names for file in _pictures(tars.directory / name)
        )
        mode = "L" if all_grey(pictures) else "RGB"
        splits = {split: Tars(tars.directory, tars.names, mode) for split, tars in splits.items()}
    return splits


def _pictures(path: Path) -> Iterable[IO[bytes]]:
    """The picture members of a tar; a damaged tar ends early here and is named when it is indexed."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile() and member.name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS:
                    stream = tar.extractfile(member)
                    assert stream is not None
                    yield stream
    except (tarfile.TarError, EOFError, OSError):
        return


@dataclass
class Index:
    """Indexes shards that somebody else wrote, in place. ``size`` is what the reader resizes pictures to."""

    unit: ClassVar[str] = "bytes"

    tars: Tars
    directory: Path
    size: Size
    classes: list[str]

    def digest(self) -> str:
        return f"{self.tars.mode} {self.tars.digest()}"

    def stamp(self, number: int) -> str:
        return _stamp([self._path(number)])

    def shards(self) -> int:
        return len(self.tars.names)

    def work(self, number: int) -> int:
        return self._path(number).stat().st_size

    def _path(self, number: int) -> Path:
        return self.tars.directory / self.tars.names[number]

    def done(self, number: int) -> bool:
        return (self.directory / PARTS / f"{number:06d}.npz").is_file()

    def make(self, number: int, left_out: frozenset[str]) -> list[Bad]:
        path = self._path(number)
        part = index_shard(path)
        bad: list[Bad] = []
        kept: list[int] = []
        with open(path, "rb") as stream:
            for row, (key, member) in enumerate(zip(part.keys, part.members, strict=True)):
                name = f"{printable(self.tars.names[number])}/{key}"
                if name in left_out:
                    continue
                kept.append(row)
                stream.seek(int(member["image_offset"]))
                try:
                    decode(stream.read(int(member["image_size"])), self.size, self.tars.mode)
                except NoImage as error:
                    bad.append({"file": name, "reason": str(error)})
        if not kept:
            raise UserError(f"{path}: not one of its {len(part.keys)} samples is a picture; remove this shard")
        if bad:
            return bad
        if left_out:
            part.keys = [part.keys[row] for row in kept]
            part.members, part.labels = part.members[kept], part.labels[kept]
            sizes = part.members["key_size"].astype(np.uint64)
            part.members["key_start"] = np.cumsum(sizes) - sizes
        write_index_part(self.directory, number, part)
        return []

    def labels(self) -> Iterator[np.ndarray]:
        """The labels of every indexed shard, from the finished index or from its parts."""
        if self.finished():
            yield np.fromfile(self.directory / "labels.bin", "<i4")
            return
        for number in range(self.shards()):
            with np.load(self.directory / PARTS / f"{number:06d}.npz") as part:
                yield part["labels"]

    def in_place(self) -> bool:
        return self.directory.resolve() == self.tars.directory.resolve()

    def finish(self, left_out: int) -> None:
        elsewhere = [str(self._path(number).resolve()) for number in range(self.shards())]
        finish_index(
            self.directory,
            self.shards(),
            classes=self.classes,
            size=self.size,
            mode=self.tars.mode,
            files=self.tars.names if self.in_place() else elsewhere,
            extra={"left_out": left_out},
        )

    def finished(self) -> bool:
        return (self.directory / "index.json").is_file()

    def discard(self) -> None:
        shutil.rmtree(self.directory / PARTS, ignore_errors=True)
