"""Writes shards: ordinary WebDataset tars with a small index next to them, each atomically; ``shards.py`` reads them.

A directory of shards holds ``000000.tar …`` and, written last, ``index.json`` (shards, counts, bytes, classes, size,
mode, fingerprint), ``index.bin`` (one ``MEMBER`` record per sample), ``keys.bin`` (the keys, concatenated) and
``labels.bin`` (int32, -1 without ``.cls``). Labels have their own file so that training, which takes its labels from a
label table, never maps them.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import remove, temporary_path, write_atomically, write_json
from cluster_jobs.data.images import Size, height_and_width

VERSION = 1
SHARD_SAMPLES = 1000
IMAGE_EXTENSIONS = ("png", "jpg", "jpeg", "webp")
MEMBER = np.dtype(
    [
        ("shard", "<u4"),
        ("image_size", "<u4"),
        ("image_offset", "<u8"),
        ("annotation_offset", "<u8"),
        ("annotation_size", "<u4"),  # 0: no .json
        ("key_size", "<u4"),
        ("key_start", "<u8"),
    ]
)
PARTS = ".parts"


@dataclass(frozen=True)
class Sample:
    """One sample to be written. ``image`` holds the encoded bytes of a ``.extension`` file."""

    key: str
    image: bytes
    extension: str = "png"
    label: int | None = None
    annotation: dict[str, Any] | None = None


@dataclass
class ShardPart:
    """One shard's part of the index.

    Attributes:
        members: one ``MEMBER`` record per sample, in order.
        labels: int32, -1 for unlabelled.
        bytes: the size of the shard.
        digest: of keys and image bytes.
    """

    members: np.ndarray
    keys: list[str]
    labels: np.ndarray
    bytes: int
    digest: str


def sample_key(number: int) -> str:
    """The key of sample ``number`` of a data set whose samples are numbered: ``00012345``."""
    return f"{number:08d}"


def shard_name(number: int) -> str:
    """The file name of shard ``number``: ``000003.tar``."""
    return f"{number:06d}.tar"


def write_shard(directory: Path, number: int, samples: Iterable[Sample]) -> None:
    """Writes ``NNNNNN.tar`` and its part of the index. The bytes depend on the samples alone (no times, no owners)."""
    parts = directory / PARTS
    parts.mkdir(parents=True, exist_ok=True)
    path = directory / shard_name(number)
    temporary = temporary_path(parts / path.name)
    try:
        with open(temporary, "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for sample in samples:
                    _add(tar, f"{sample.key}.{sample.extension}", sample.image)
                    if sample.label is not None:
                        _add(tar, f"{sample.key}.cls", str(sample.label).encode())
                    if sample.annotation is not None:
                        _add(tar, f"{sample.key}.json", json.dumps(sample.annotation, ensure_ascii=False).encode())
            stream.flush()
            os.fsync(stream.fileno())
        _write_part(directory, number, index_shard(temporary))
        temporary.replace(path)
    finally:
        remove(temporary)  # it is still there where the samples raised


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def shard_done(directory: Path, number: int) -> bool:
    """Whether shard ``number`` and its part of the index are already there and belong together."""
    path, part = directory / shard_name(number), _part_path(directory, number)
    return path.is_file() and part.is_file() and path.stat().st_size == int(np.load(part)["bytes"])


def forget_shard(directory: Path, number: int) -> None:
    """Makes shard ``number`` count as not done."""
    _part_path(directory, number).unlink(missing_ok=True)


def index_shard(path: Path) -> ShardPart:
    """Reads one tar through and indexes it. Works for shards that somebody else wrote.

    Raises:
        UserError: not a tar, truncated, a label that is no integer, or a sample without an image.
    """
    size = path.stat().st_size
    members: list[tuple[int, ...]] = []
    keys: list[str] = []
    labels: list[int] = []
    digest = hashlib.sha256()
    key_start = 0
    try:
        with tarfile.open(path, "r:") as tar:
            for key, named in members_by_key(tar):
                files = dict(named)
                if len(files) < len(named):
                    raise tarfile.ReadError(f"{_repeated(named)} is there twice")
                extension = next((name for name in IMAGE_EXTENSIONS if name in files), None)
                if extension is None:
                    raise UserError(f"{path}: sample {key!r} has no image (found {', '.join(files)})")
                image, annotation, label = files[extension], files.get("json"), files.get("cls")
                content = _content(tar, image)
                digest.update(hashlib.sha256(key.encode() + b"\0" + content).digest())
                key_bytes = len(key.encode())
                span = (annotation.offset_data, annotation.size) if annotation else (0, 0)
                members.append((0, image.size, image.offset_data, *span, key_bytes, key_start))
                key_start += key_bytes
                keys.append(key)
                labels.append(_parse_label(path, key, _content(tar, label)) if label else -1)
            complete = closed(tar)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path}: damaged or truncated tar after {len(keys)} samples ({error})") from error
    if not complete or not keys:
        raise UserError(f"{path}: {'truncated' if keys else 'empty'} tar ({size} bytes, {len(keys)} whole samples)")
    if len(set(keys)) < len(keys):
        raise UserError(f"{path}: {len(keys) - len(set(keys))} keys are there twice; a sample's key must be its own")
    return ShardPart(np.array(members, MEMBER), keys, np.array(labels, "<i4"), size, digest.hexdigest())


def members_by_key(tar: tarfile.TarFile) -> Iterator[tuple[str, list[tuple[str, tarfile.TarInfo]]]]:
    """Groups consecutive files by key, as WebDataset does (the name up to the first dot of its last part).

    Yields each group's key and its files as pairs of lower-case extension and member. A damaged header may end the
    walk like the end of the tar does; :func:`closed` tells them apart.
    """
    current: str | None = None
    files: list[tuple[str, tarfile.TarInfo]] = []
    for member in tar:
        if not member.isfile():
            continue
        folder, slash, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        key = folder + slash + stem
        if key != current and files:
            yield str(current), files
            files = []
        current = key
        files.append((extension.lower(), member))
    if files:
        yield str(current), files


def closed(tar: tarfile.TarFile) -> bool:
    """Whether a tar that was read to its end has the closing block of zeros."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    return tar.fileobj.read(tarfile.BLOCKSIZE) == tarfile.NUL * tarfile.BLOCKSIZE


def _repeated(named: list[tuple[str, tarfile.TarInfo]]) -> str:
    """The first file of a group whose extension the group has already."""
    extensions = [extension for extension, _ in named]
    return next(member.name for i, (_, member) in enumerate(named) if extensions[i] in extensions[:i])


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None
    content = stream.read()
    if len(content) != member.size:
        raise tarfile.ReadError(f"{member.name} ends early")
    return content


def _parse_label(path: Path, key: str, content: bytes) -> int:
    try:
        label = int(content.decode().strip())
    except ValueError:
        raise UserError(f"{path}: {key}.cls holds {content[:40]!r}, expected a class number") from None
    if not 0 <= label < 2**31:
        raise UserError(f"{path}: {key}.cls holds {label}, expected a class number of at least 0")
    return label


def _part_path(directory: Path, number: int) -> Path:
    return directory / PARTS / f"{number:06d}.npz"


def _write_part(directory: Path, number: int, part: ShardPart) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        members=part.members,
        keys=np.frombuffer("".join(part.keys).encode(), np.uint8),
        labels=part.labels,
        bytes=np.int64(part.bytes),
        digest=np.array(part.digest),
    )
    write_atomically(_part_path(directory, number), buffer.getvalue())


def write_index_part(directory: Path, number: int, part: ShardPart) -> None:
    """Stores the index part of a shard in another directory, until :func:`finish_index` joins the parts."""
    (directory / PARTS).mkdir(parents=True, exist_ok=True)
    _write_part(directory, number, part)


def stored_size(size: Size) -> int | list[int]:
    """A size as JSON files hold it: one integer where square, else ``[height, width]``."""
    height, width = height_and_width(size)
    return height if height == width else [height, width]


def finish_index(
    directory: Path,
    shards: int,
    *,
    classes: Sequence[str],
    size: Size,
    mode: str,
    files: Sequence[str] | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Joins the parts of shards ``0 … shards-1`` into the index; ``index.json`` comes last and makes the directory
    valid.

    Args:
        files: the path of each shard, relative to ``directory`` or absolute; ``NNNNNN.tar`` by default.
        size: of the pictures; the index holds one integer where they are square, else ``[height, width]``.
        mode: ``"L"`` (one channel) or ``"RGB"``.
        extra: further facts for ``index.json`` (the source, what was skipped).

    Raises:
        UserError: two shards of one name, so that ``SHARD/KEY`` would name two samples.
    """
    names = list(files) if files else [shard_name(number) for number in range(shards)]
    if len({Path(name).stem for name in names}) < shards:
        raise UserError(f"{directory}: two shards have the same file name; SHARD/KEY must name one sample")
    entries: list[dict[str, Any]] = []
    fingerprint = hashlib.sha256()
    key_start = 0
    streams = {name: open(directory / f".{name}.tmp", "wb") for name in ("index.bin", "keys.bin", "labels.bin")}  # noqa: SIM115
    for number in range(shards):
        with np.load(_part_path(directory, number)) as part:
            members = part["members"]
            members["shard"] = number
            members["key_start"] += key_start
            key_start += part["keys"].size
            streams["index.bin"].write(members.tobytes())
            streams["keys.bin"].write(part["keys"].tobytes())
            streams["labels.bin"].write(part["labels"].astype("<i4").tobytes())
            digest = str(part["digest"])
            entries.append(
                {"name": names[number], "count": len(members), "bytes": int(part["bytes"]), "digest": digest}
            )
            fingerprint.update(digest.encode())
    for name, stream in streams.items():
        stream.flush()
        os.fsync(stream.fileno())
        stream.close()
        (directory / f".{name}.tmp").replace(directory / name)
    index = {
        "version": VERSION,
        "count": sum(entry["count"] for entry in entries),
        "classes": list(classes),
        "size": stored_size(size),
        "mode": mode,
        "fingerprint": fingerprint.hexdigest(),
        **(extra or {}),
        "shards": entries,
    }
    write_json(directory / "index.json", index)
    shutil.rmtree(directory / PARTS)
