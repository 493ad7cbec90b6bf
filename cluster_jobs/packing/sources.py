"""Sources of images to pack: scikit-learn's digits, MNIST-format files, folders of pictures.

A source is one split as a small object: its length, ``labels`` (int32, -1 unlabelled), ``classes``, ``mode``, and
``read(i) -> (uint8 (C, height, width), label or None, annotation or None)``. Shards that somebody else wrote are no
source: ``makers.py`` indexes them in place.
"""

import gzip
import hashlib
import io
import os
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image, ImageOps

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.seeds import key_hash
from cluster_jobs.data.images import Size, height_and_width, to_array
from cluster_jobs.data.shard_writer import IMAGE_EXTENSIONS

FORMATS = ("PNG", "JPEG", "WEBP")
DIGITS_TEST = (
    360  # the last fifth: other writers than most of the rest, since the file lists the digits as they were collected
)
HELD_OUT = ("test", "val", "validation")  # folders beside train/, the first that exists is the test split

Read = tuple[np.ndarray, int | None, dict[str, Any] | None]


class NoImage(UserError):
    """A file that is missing, truncated or no PNG, JPEG or WebP."""


class Source(Protocol):
    """One split of images."""

    classes: list[str]
    labels: np.ndarray
    mode: str  # "L" or "RGB"

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Names a sample in messages and in the draw of a held-out share."""

    def read(self, index: int) -> Read:
        """A picture, uint8 (C, height, width), its label and annotation. Raises NoImage."""

    def paths(self, index: int) -> Sequence[Path]:
        """The files that a sample is read from; none where the digest covers their content."""

    def digest(self) -> str:
        """Changes when samples are added, removed or changed; a change within one of ``paths`` need not change it."""


def decode(content: bytes, size: Size, mode: str) -> np.ndarray:
    """A PNG, JPEG or WebP as uint8 (C, height, width): upright, on white, its centre. Raises NoImage."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            least = 2 * max(height_and_width(size))  # both sides alike: the picture may be turned below
            opened.draft(opened.mode, (least, least))  # large JPEGs decode at a fraction, never below twice the size
            picture: Image.Image = ImageOps.exif_transpose(opened)
            return to_array(picture, size, mode)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever they meet in a damaged file
        reason = "not a PNG, JPEG or WebP" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise NoImage(reason) from error


def all_grey(files: Iterable[Path | IO[bytes]]) -> bool:
    """Whether every picture is stored as grey, by its header; the first colour picture ends the search."""
    for file in files:
        try:
            with Image.open(file, formats=FORMATS) as picture:
                if picture.mode not in ("1", "L", "LA") and not picture.mode.startswith("I"):
                    return False
        except Exception:  # a damaged file is named when it is read
            continue
    return True


@dataclass
class Arrays:
    """Grey images in memory: centred by zero padding to the next power of two (28 → 32), then resized if need be."""

    images: np.ndarray  # uint8 (N, h, w)
    labels: np.ndarray
    classes: list[str]
    size: int
    mode: str
    split: str

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"{self.split}[{index}]"

    def read(self, index: int) -> Read:
        image = self.images[index]
        side = 1 << (max(image.shape) - 1).bit_length()
        top, left = ((side - length) // 2 for length in image.shape)
        canvas = np.zeros((side, side), np.uint8)
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
        picture = Image.fromarray(canvas)
        if side != self.size:
            picture = picture.resize((self.size, self.size), Image.Resampling.BICUBIC)
        label = int(self.labels[index])
        return to_array(picture, self.size, self.mode), None if label < 0 else label, None

    def paths(self, index: int) -> Sequence[Path]:
        return ()

    def digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.images).tobytes() + self.labels.tobytes()).hexdigest()


def digits(size: int, mode: str) -> dict[str, Source]:
    """scikit-learn's 1,797 handwritten digits (8×8, values 0…16); the last 360 are the test split."""
    from sklearn.datasets import load_digits  # here, since it takes seconds and every worker imports this module

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int32)
    names = [str(name) for name in range(10)]
    mode = "L" if mode == "auto" else mode
    cut = len(images) - DIGITS_TEST
    return {
        "train": Arrays(images[:cut], labels[:cut], names, size, mode, "train"),
        "test": Arrays(images[cut:], labels[cut:], names, size, mode, "test"),
    }


def idx(path: Path, size: int, mode: str, classes: Sequence[str]) -> dict[str, Source]:
    """MNIST-format files: ``train-images-idx3-ubyte``, labels, and ``t10k-…`` (or ``test-…``), plain or ``.gz``."""
    arrays: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split, prefix in (("train", "train"), ("test", "t10k"), ("test", "test")):
        file = _idx_file(path, prefix, "images-idx3")
        if file is None or split in arrays:
            continue
        images = _read_idx(file, 3)
        label_file = _idx_file(path, prefix, "labels-idx1")
        labels = _read_idx(label_file, 1).astype(np.int32) if label_file else np.full(len(images), -1, np.int32)
        if len(labels) != len(images):
            raise UserError(f"{label_file}: {len(labels)} labels for the {len(images)} images of {file.name}")
        arrays[split] = images, labels
    if "train" not in arrays:
        raise UserError(f"path={str(path)!r}: expected MNIST-format files, at least train-images-idx3-ubyte (.gz too)")
    names = class_names(classes, max(int(labels.max(initial=-1)) for _, labels in arrays.values()))
    mode = "L" if mode == "auto" else mode
    return {split: Arrays(*pair, names, size, mode, split) for split, pair in arrays.items()}


def class_names(given: Sequence[str], highest: int) -> list[str]:
    """The names given by the user, or numbers; there must be one for every label up to ``highest``."""
    if given and len(given) <= highest:
        raise UserError(f"classes={','.join(given)}: {len(given)} names, but the labels go up to {highest}")
    return list(given) or [str(number) for number in range(highest + 1)]


def _idx_file(path: Path, prefix: str, kind: str) -> Path | None:
    names = (f"{prefix}-{stem}-ubyte{end}" for stem in (kind, kind.replace("-", ".")) for end in ("", ".gz"))
    return next((path / name for name in names if (path / name).is_file()), None)


def _read_idx(file: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an IDX file: 0, 0, type 8, the number of dimensions, big-endian sizes, the values."""
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: damaged or truncated ({error})") from error
    if content[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(
            f"{file}: starts with {content[:4].hex()!r}, expected an IDX file of {dimensions}-dimensional bytes"
        )
    header = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:header], ">u4")
    if len(shape) != dimensions or len(content) - header != np.prod(shape, dtype=np.int64):
        raise UserError(
            f"{file}: truncated, {len(content)} bytes for the shape {' × '.join(map(str, shape))} that it states"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape([int(length) for length in shape])


@dataclass
class Files:
    """Picture files below ``root``, each named by its path relative to ``root``."""

    root: Path
    files: list[str]
    labels: np.ndarray
    classes: list[str]
    size: Size
    mode: str

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return printable(self.files[index])

    def read(self, index: int) -> Read:
        try:
            content = (self.root / self.files[index]).read_bytes()
        except OSError as error:
            raise NoImage(error.strerror or str(error)) from error
        label = int(self.labels[index])
        image = decode(content, self.size, self.mode)
        return image, None if label < 0 else label, {"file": self.name(index)}

    def paths(self, index: int) -> Sequence[Path]:
        return (self.root / self.files[index],)

    def digest(self) -> str:
        return hashlib.sha256("\0".join(map(printable, self.files)).encode()).hexdigest()


def printable(name: str) -> str:
    """A file name as text that every encoder takes: bytes that are no UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def folder(path: Path, size: Size, mode: str) -> dict[str, Source]:
    """Pictures in one directory per class, or flat and unlabelled.

    Where ``path`` holds nothing but ``train/`` and ``test/`` (else ``val/`` or ``validation/``), these are the splits.
    Each first-level directory of a split is a class, at whatever depth its files are; files beside them are
    unlabelled. Hidden files are ignored; any other file must be a picture. The order is the hash of the file's
    path, so that every shard holds a mixture of the classes.
    """
    parts = split_directories(path)
    listing = {split: _walk(path, prefix) for split, prefix in parts.items()}
    depth = {split: len(PurePath(prefix).parts) for split, prefix in parts.items()}
    if not any(listing.values()):
        raise UserError(f"path={str(path)!r} holds no files; expected pictures, flat or in one directory per class")
    for split, files in listing.items():
        if not files:
            raise UserError(f"path={str(path)!r}: its directory {parts[split]!r} holds no files")
    names = {split: [_class_of(file, depth[split]) for file in files] for split, files in listing.items()}
    classes = sorted({name for column in names.values() for name in column if name is not None})
    number = {name: i for i, name in enumerate(classes)}
    if mode == "auto":
        mode = "L" if all_grey(path / file for column in listing.values() for file in column) else "RGB"
    sources: dict[str, Source] = {}
    for split, files in listing.items():
        labels = np.array([-1 if name is None else number[name] for name in names[split]], np.int32)
        sources[split] = Files(path, files, labels, classes, size, mode)
    return sources


def split_directories(path: Path) -> dict[str, str]:
    """The directory of each split relative to ``path``: {"train": "."} unless ``path`` holds only splits."""
    if not path.is_dir():
        raise UserError(f"path={str(path)!r}: no such directory")
    inside = {entry.name for entry in os.scandir(path) if not entry.name.startswith(".") and entry.is_dir()}
    loose = any(entry.is_file() and is_data(entry.name) for entry in os.scandir(path))
    if "train" not in inside or inside - {"train", *HELD_OUT} or loose:
        return {"train": "."}
    test = next((name for name in HELD_OUT if name in inside), None)
    return {"train": "train"} | ({"test": test} if test else {})


def is_data(name: str) -> bool:
    """Whether a file name looks like a picture or a tar (and not like a README beside the splits)."""
    return name.lower().endswith((*(f".{extension}" for extension in IMAGE_EXTENSIONS), ".tar"))


def _walk(root: Path, prefix: str) -> list[str]:
    """Every file below ``root/prefix`` that is not hidden, by its path relative to ``root``, in hash order."""
    files: list[str] = []
    stack: list[tuple[str, frozenset[str]]] = [(prefix, frozenset())]
    while stack:
        relative, above = stack.pop()
        real = os.path.realpath(root / relative)
        if real in above:  # a link to a directory above it
            continue
        for entry in os.scandir(root / relative):
            path = os.path.normpath(os.path.join(relative, entry.name))
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                stack.append((path, above | {real}))
            else:
                files.append(path)
    return sorted(files, key=lambda file: (key_hash("order", printable(file)), file))


def _class_of(file: str, depth: int) -> str | None:
    """The class directory of a file, composed (NFC) so that a name is the same whatever system made the directory."""
    parts = PurePath(file).parts[depth:]
    return unicodedata.normalize("NFC", printable(parts[0])) if len(parts) > 1 else None


@dataclass
class Held:
    """A part of a source, by index."""

    source: Source
    indices: np.ndarray

    def __post_init__(self) -> None:
        self.classes, self.mode = self.source.classes, self.source.mode
        self.labels = self.source.labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.source.name(int(self.indices[index]))

    def read(self, index: int) -> Read:
        return self.source.read(int(self.indices[index]))

    def paths(self, index: int) -> Sequence[Path]:
        return self.source.paths(int(self.indices[index]))

    def digest(self) -> str:
        return hashlib.sha256(self.source.digest().encode() + self.indices.astype("<i8").tobytes()).hexdigest()


def hold_out(source: Source, share: float, seed: int) -> dict[str, Source]:
    """Splits off ``share`` of every class as the test split: the samples whose names hash smallest.

    A class of two or more samples keeps at least one on each side; a single sample stays in train.
    """
    hashes = np.array([key_hash(f"test/{seed}", source.name(i)) for i in range(len(source))], np.uint64)
    test = np.zeros(len(source), bool)
    for label in np.unique(source.labels):
        members = np.flatnonzero(source.labels == label)
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        test[members[np.argsort(hashes[members], kind="stable")[:count]]] = True
    if not test.any():
        raise UserError(f"test={share}: no class has two samples, so none can be held out")
    return {"train": Held(source, np.flatnonzero(~test)), "test": Held(source, np.flatnonzero(test))}
