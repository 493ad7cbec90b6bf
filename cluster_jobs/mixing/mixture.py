"""Builds a mixture: hashes all candidate images, chooses among them, and writes the shards.

A signature is the hash and the thumbnail of an image. Only index arrays and signatures are kept in memory, no images.
"""

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_atomically, write_json
from cluster_jobs.core.seeds import derive_seed, key_hash
from cluster_jobs.core.workers import run_tasks
from cluster_jobs.data.images import encode_png
from cluster_jobs.data.pool import shard_samples, shard_sizes
from cluster_jobs.data.shard_writer import SHARD_SAMPLES, Sample, sample_key, shard_done, write_shard
from cluster_jobs.mixing import duplicates
from cluster_jobs.mixing.sources import REAL, MixSource

SIGNATURES = ".signatures"  # of finished blocks; gone when the pool is finished
BLOCK = 4096  # samples whose signatures are one file
EXACT, NEAR = "exact", "near"


@dataclass(frozen=True)
class Selection:
    """The mixture in its order: for each picture its source (its number), the row of the source, and the class."""

    source: np.ndarray  # (n,) int8
    row: np.ndarray  # (n,) int64
    label: np.ndarray  # (n,) int32

    def __len__(self) -> int:
        return len(self.source)


def signatures(sources: list[MixSource], out: Path, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (n, 16) and thumbnails (n, cells), uint8, of all samples of all sources, source by source.

    Blocks that an earlier command finished are read back, also where its shares or counts were refused; those of other
    sources are dropped.
    """
    record, identity = out / SIGNATURES / "sources.json", {source.name: source.identity() for source in sources}
    if not record.is_file() or read_json(record) != identity:
        tidy(out)
        write_json(record, identity)
    blocks = [
        (number, start) for number, source in enumerate(sources) for start in range(0, len(source.indices), BLOCK)
    ]
    missing = [block for block in blocks if not _block_path(out, sources, block).is_file()]
    for _ in run_tasks(_sign, (out, sources), missing, min(workers, len(missing))):
        pass
    stored = [np.load(_block_path(out, sources, block)) for block in blocks]
    return np.concatenate([part["hashes"] for part in stored]), np.concatenate([part["thumbnails"] for part in stored])


def _block_path(out: Path, sources: list[MixSource], block: tuple[int, int]) -> Path:
    return out / SIGNATURES / f"{sources[block[0]].name}-{block[1]:010d}.npz"


def _sign(context: tuple[Path, list[MixSource]], block: tuple[int, int]) -> None:
    out, sources = context
    source = sources[block[0]]
    shards, indices = source.shards, source.indices[block[1] : block[1] + BLOCK]
    shards.prefetch(indices)
    signed = [duplicates.signature(shards.image(int(index))) for index in indices]
    buffer = io.BytesIO()
    hashes = np.frombuffer(b"".join(digest for digest, _ in signed), np.uint8).reshape(-1, 16)
    np.savez(buffer, hashes=hashes, thumbnails=np.stack([small for _, small in signed]))
    write_atomically(_block_path(out, sources, block), buffer.getvalue())


def without_duplicates(
    sources: list[MixSource], hashes: np.ndarray, thumbnails: np.ndarray, distance: float
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The rows of each source that stay, ascending, and how many were dropped: by source, kind, and by which source.

    Equal pictures are dropped whatever their classes, near ones within a class. The earlier source's picture stays.
    """
    origin = np.repeat(np.arange(len(sources)), [len(source.indices) for source in sources])
    labels = np.concatenate([source.labels for source in sources])
    dropped: dict[str, Any] = {source.name: {EXACT: {}, NEAR: {}} for source in sources}

    def drop(kind: str, gone: np.ndarray, stays: np.ndarray) -> None:
        pairs, counts = np.unique(np.stack([origin[gone], origin[stays]]), axis=1, return_counts=True)
        for (lost, kept), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
            dropped[sources[lost].name][kind][sources[kept].name] = count

    first = duplicates.exact(hashes)
    stay = first == np.arange(len(first))
    drop(EXACT, np.flatnonzero(~stay), first[~stay])
    for label in range(len(sources[0].classes)):
        members = np.flatnonzero(stay & (labels == label))
        stands = duplicates.near(thumbnails[members], distance)
        lost = np.flatnonzero(stands != np.arange(len(members)))
        drop(NEAR, members[lost], members[stands[lost]])
        stay[members[lost]] = False
    begins = np.cumsum([0, *(len(source.indices) for source in sources)])
    rows = [np.flatnonzero(stay[begins[number] : begins[number + 1]]) for number in range(len(sources))]
    return rows, dropped


def counts_of(sources: list[MixSource], rows: list[np.ndarray]) -> np.ndarray:
    """(classes, sources) int64: how many of the rows each class has."""
    classes = len(sources[0].classes)
    columns = [np.bincount(source.labels[kept], minlength=classes) for source, kept in zip(sources, rows, strict=True)]
    return np.stack(columns, axis=1).astype(np.int64)


def check_capacity(wanted: np.ndarray, capacity: np.ndarray, available: np.ndarray, sources: list[MixSource]) -> None:
    """Raises UserError for what the sources cannot give, naming the first class and what is available.

    Args:
        wanted, capacity: (classes, sources), asked for and possible with repeats; available: without repeats.
    """
    lacking = np.argwhere(wanted > capacity)
    if len(lacking):
        label, number = lacking[0].tolist()
        source, there = sources[number], int(available[label, number])
        times = capacity[label, number] // max(there, 1)
        advice = "a greater repeat=, " if source.name == REAL and there else ""
        raise UserError(
            f"{source.name}={source.directory!r} has {there} different images of class "
            f"{source.classes[label]!r}{f' for up to {times} places each' if times > 1 else ''}, "
            f"{wanted[label, number]} are asked for (and too few in {len(lacking)} of {wanted.size} such cells): "
            f"expected {advice}a smaller count=, other shares, or fill=true"
        )


def choose(sources: list[MixSource], rows: list[np.ndarray], wanted: np.ndarray, seed: int) -> Selection:
    """The pictures: of each class and source those with the smallest keyed hashes, in a keyed order.

    Where more are wanted than there are, all are taken equally often (the first ones once more).
    """
    parts: list[tuple[np.ndarray, ...]] = []
    for number, (source, kept) in enumerate(zip(sources, rows, strict=True)):
        labels = source.labels[kept]
        for label in np.unique(labels).tolist():
            count, members = int(wanted[label, number]), kept[labels == label]
            names = source.keys(members)
            ranks = sorted(range(len(members)), key=lambda row: (key_hash(f"{seed}/{source.name}", names[row]), row))  # noqa: B023
            chosen = np.resize(members[np.array(ranks)], count)
            parts.append((np.full(count, number, np.int8), chosen, np.full(count, label, np.int32)))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.random.Generator(np.random.PCG64(derive_seed(seed, "mixture", len(columns[0])))).permutation(
        len(columns[0])
    )
    return Selection(*(column[order] for column in columns))


def write_shards(sources: list[MixSource], chosen: Selection, out: Path, workers: int) -> None:
    """The shards that are not there yet, each whole or absent."""
    missing = [number for number in range(len(shard_sizes(len(chosen)))) if not shard_done(out, number)]
    tasks = [(number, _slice(chosen, number)) for number in missing]
    for _ in run_tasks(_write, (out, sources), tasks, min(workers, len(missing))):
        pass


def _slice(chosen: Selection, number: int) -> Selection:
    samples = shard_samples(number, len(chosen))
    part = slice(samples.start, samples.stop)
    return Selection(chosen.source[part], chosen.row[part], chosen.label[part])


def _write(context: tuple[Path, list[MixSource]], task: tuple[int, Selection]) -> None:
    out, sources = context
    write_shard(out, task[0], _samples(sources, *task))


def _samples(sources: list[MixSource], number: int, chosen: Selection) -> Iterator[Sample]:
    """The samples of shard ``number``, whose part of the mixture is ``chosen``."""
    for row in range(len(chosen)):
        source = sources[int(chosen.source[row])]
        index, shards = int(source.indices[chosen.row[row]]), source.shards
        annotation: dict[str, Any] = {"source": source.name, "key": shards.key(index)}
        before = shards.annotation(index)
        if before is not None:
            annotation["annotation"] = before
        name = sample_key(number * SHARD_SAMPLES + row)
        yield Sample(name, encode_png(shards.image(index)), "png", int(chosen.label[row]), annotation)


def tidy(out: Path) -> None:
    """Removes what only an unfinished mixture needs."""
    shutil.rmtree(out / SIGNATURES, ignore_errors=True)
