"""Checks shards against their index, one at a time, with the keys of one shard in memory. Nothing is ever written.

What is checked of a shard: that it exists, its size, that its tar is complete, and its digest of keys and image bytes,
which the fingerprint of the data is made of. Of each sample: that tar and index name the same keys once, with the same
image and annotation at the same offset; that the image decodes (and a PNG's checksums hold); that the annotation is
JSON; that ``.cls`` and ``labels.bin`` agree on a known class. Since no two shards have the same name and no two
samples of a shard the same key, every identity ``SHARD/KEY`` names one sample.

What no check can detect: a changed ``.json`` that still is JSON (the fingerprint covers no annotations or labels), and
*which* image changed if it has no checksum and still decodes. Then the shard is named.
"""

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from cluster_jobs.data.shard_writer import IMAGE_EXTENSIONS, MEMBER, VERSION, closed, members_by_key

INDEX_FILES = ("index.json", "index.bin", "keys.bin", "labels.bin")
SURROGATES = "surrogateescape"  # how tarfile reads a name that is no UTF-8


@dataclass(frozen=True, slots=True)
class Damage:
    """A fault of one sample, or of a whole shard where ``key`` is None."""

    shard: str
    key: str | None
    reason: str

    @property
    def name(self) -> str:
        """``SHARD/KEY``, or ``SHARD``."""
        name = self.shard if self.key is None else f"{self.shard}/{self.key}"
        return name.encode("utf-8", SURROGATES).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Shard:
    """One entry of an index: the shard's number, file, samples (``start`` is the index of the first) and bytes."""

    number: int
    file: str
    start: int
    count: int
    bytes: int
    digest: str

    @property
    def name(self) -> str:
        return Path(self.file).stem


@dataclass(frozen=True, slots=True)
class ShardDirectory:
    """What the check of a shard needs to know of its directory."""

    directory: Path
    classes: int
    left_out: int  # files that are no pictures and were left out of the index on purpose


@dataclass(frozen=True, slots=True)
class _Sample:
    """One sample in the index: image and annotation as (offset, size) in bytes, ``label`` -1 without ``.cls``."""

    image: tuple[int, int]
    annotation: tuple[int, int]
    label: int


def open_split(directory: Path) -> tuple[ShardDirectory, list[Shard], str]:
    """A directory's split, shards and fingerprint.

    Raises:
        UserError: the index is damaged or contradicts itself, so that no shard can be checked against it.
    """
    path = directory / "index.json"
    index = read_json(path)
    try:
        if index["version"] != VERSION:
            raise UserError(f"{path}: index version {index['version']}, this program reads version {VERSION}")
        shards, start = [], 0
        for number, entry in enumerate(index["shards"]):
            shards.append(Shard(number, entry["name"], start, entry["count"], entry["bytes"], entry["digest"]))
            start += entry["count"]
        split = ShardDirectory(directory, len(index["classes"]), index.get("left_out", 0))
        count, fingerprint = index["count"], index["fingerprint"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged index ({error}); pack the data again") from error
    if start != count or not count:
        raise UserError(f"{path}: damaged index, its shards hold {start:,} samples and it says {count:,}")
    if len({shard.name for shard in shards}) < len(shards):
        raise UserError(f"{path}: two shards have the same file name; SHARD/KEY must name one sample")
    if hashlib.sha256("".join(shard.digest for shard in shards).encode()).hexdigest() != fingerprint:
        raise UserError(f"{path}: damaged index, the fingerprint is not that of its shards' digests")
    _check_size(directory / "index.bin", count * MEMBER.itemsize)
    _check_size(directory / "labels.bin", count * 4)
    last = np.memmap(directory / "index.bin", MEMBER, "r")[-1]
    _check_size(directory / "keys.bin", int(last["key_start"]) + int(last["key_size"]))
    return split, shards, fingerprint


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file() or path.stat().st_size != expected:
        raise UserError(f"{path}: damaged index, expected {expected:,} bytes; pack the data again")


def check(split: ShardDirectory, shard: Shard) -> list[Damage]:
    """All damage of one shard, in the order of the index, then of the tar."""
    checker = _Checker(split, shard)
    try:
        with open(split.directory / shard.file, "rb") as stream:
            checker.check(stream)
    except FileNotFoundError:
        checker.say(None, f"missing; the index names {shard.count:,} samples in it")
    except OSError as error:
        checker.say(None, f"unreadable ({error.strerror or error})")
    return checker.damage


class _Checker:
    """The check of one shard: compares the tar with the index, then looks at samples that are in the index alone."""

    def __init__(self, split: ShardDirectory, shard: Shard) -> None:
        self.split, self.shard = split, shard
        self.damage: list[Damage] = []
        self.explained = False  # the damage so far explains another digest
        self.digest = hashlib.sha256()
        self.size = 0

    def say(self, key: str | None, reason: str | None, *, explains: bool = True) -> None:
        """Notes damage, if there is a reason; ``explains`` where keys or image bytes are concerned."""
        if reason:
            self.damage.append(Damage(self.shard.name, key, reason))
            self.explained |= explains

    def check(self, stream: BinaryIO) -> None:
        self.size = os.fstat(stream.fileno()).st_size
        if self.size != self.shard.bytes:
            self.say(None, f"{self.size:,} bytes, the index says {self.shard.bytes:,}")
        samples = self._indexed()
        missing = dict(samples)
        complete = False
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for key, files in members_by_key(tar):
                    self._check_group(stream, key, files, samples, key in missing)
                    missing.pop(key, None)
                complete = closed(tar)
        except (tarfile.TarError, EOFError) as error:
            self.say(None, f"damaged tar ({error})")
        else:
            if not complete:
                self.say(None, f"damaged or truncated tar after {len(samples) - len(missing):,} samples")
        for key, sample in missing.items():
            reason = "the index names it, the shard does not hold it" if complete else self._image(stream, sample.image)
            self.say(key, reason)
        if self.digest.hexdigest() != self.shard.digest and not self.explained:
            self.say(None, "image bytes or keys have changed since the shard was indexed (its digest differs)")

    def _indexed(self) -> dict[str, _Sample]:
        """The shard's samples by key, as the index has them."""
        directory, shard = self.split.directory, self.shard
        members = np.memmap(directory / "index.bin", MEMBER, "r")[shard.start : shard.start + shard.count]
        labels = np.memmap(directory / "labels.bin", "<i4", "r")[shard.start : shard.start + shard.count]
        if not (members["shard"] == shard.number).all():
            self.say(None, "index.bin gives some of its samples to another shard")
        samples: dict[str, _Sample] = {}
        for key, member, label in zip(_keys(directory, members), members, labels.tolist(), strict=True):
            if key in samples:
                self.say(key, "the index names this key twice")
            if not -1 <= label < self.split.classes:
                self.say(key, f"labels.bin says class {label}, there are {self.split.classes}", explains=False)
            image = int(member["image_offset"]), int(member["image_size"])
            annotation = int(member["annotation_offset"]), int(member["annotation_size"])
            samples[key] = _Sample(image, annotation, label)
        return samples

    def _check_group(
        self,
        stream: BinaryIO,
        key: str,
        named: list[tuple[str, tarfile.TarInfo]],
        samples: dict[str, _Sample],
        first: bool,
    ) -> None:
        """Compares the files of one key in the tar with the index."""
        repeated = [extension for extension, times in Counter(extension for extension, _ in named).items() if times > 1]
        files = dict(reversed(named))  # of repeated files the first
        picture = next((files[name] for name in IMAGE_EXTENSIONS if name in files), None)
        if picture is None:
            self.say(key, f"no image (found {', '.join(files)})")
            return
        span = picture.offset_data, picture.size
        content = self._read(stream, span)
        self.digest.update(hashlib.sha256(key.encode("utf-8", SURROGATES) + b"\0" + content).digest())
        reason = _undecodable(content)
        sample = samples.get(key)
        if sample is None:
            if not (reason and self.split.left_out):
                self.say(key, "the shard holds it, the index does not name it")
            return
        if not first:
            self.say(key, "this key is there twice; a sample's key must be its own")
            return
        if repeated:
            self.say(key, f"its .{repeated[0]} is there twice; a sample's key must be its own")
        if span != sample.image:
            self.say(key, f"its image is {_span_text(span)}, the index says {_span_text(sample.image)}")
        self.say(key, reason or self._short(span))
        self.say(key, self._annotation(stream, files.get("json"), sample), explains=False)
        self.say(key, self._label(stream, files.get("cls"), sample), explains=False)

    def _read(self, stream: BinaryIO, span: tuple[int, int]) -> bytes:
        """The bytes of ``span`` (offset, size), fewer at the end of the shard; the position of ``stream`` stays."""
        offset, size = span
        return os.pread(stream.fileno(), max(0, min(size, self.size - offset)), offset)

    def _short(self, span: tuple[int, int]) -> str | None:
        return "lies beyond the end of the shard" if sum(span) > self.size else None

    def _image(self, stream: BinaryIO, span: tuple[int, int]) -> str | None:
        return self._short(span) or _undecodable(self._read(stream, span))

    def _annotation(self, stream: BinaryIO, file: tarfile.TarInfo | None, sample: _Sample) -> str | None:
        span = (file.offset_data, file.size) if file else (0, 0)
        if span != sample.annotation:
            return f"its .json is {_span_text(span)}, the index says {_span_text(sample.annotation)}"
        try:
            if file:
                json.loads(self._read(stream, span))
        except ValueError as error:
            return f"its .json is not JSON ({error})"
        return None

    def _label(self, stream: BinaryIO, file: tarfile.TarInfo | None, sample: _Sample) -> str | None:
        indexed = f"labels.bin says {sample.label}" if sample.label >= 0 else "labels.bin has no label"
        if file is None:
            return f"it has no .cls, {indexed}" if sample.label >= 0 else None
        content = self._read(stream, (file.offset_data, file.size))
        try:
            agrees = int(content.decode().strip()) == sample.label
        except ValueError:
            agrees = False
        return None if agrees else f"its .cls holds {content[:40].decode(errors='backslashreplace')!r}, {indexed}"


def _keys(directory: Path, members: np.ndarray) -> Iterator[str]:
    with open(directory / "keys.bin", "rb") as stream:
        for member in members:
            stream.seek(int(member["key_start"]))
            yield stream.read(int(member["key_size"])).decode("utf-8", SURROGATES)


def _span_text(span: tuple[int, int]) -> str:
    offset, size = span
    return f"{size:,} bytes at {offset:,}" if size else "missing"


def _undecodable(content: bytes) -> str | None:
    """Why an image cannot be decoded, or None."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.verify()  # a PNG's checksums, which decoding leaves out
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever they meet in a damaged file
        if isinstance(error, Image.UnidentifiedImageError):
            return "no readable image (no known format)"
        return f"no readable image ({' '.join(str(error).split())})"
    return None
