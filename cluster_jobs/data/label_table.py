"""The label table: which sample has which label, where it came from and how sure it is.

A parquet file in index order. Training reads labels from here and from nowhere else, through :func:`merge`.
"""

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import make_parent, write_atomically
from cluster_jobs.core.output_directory import refuse_changes
from cluster_jobs.data.shards import Shards

ORIGINS = ("true", "inferred", "cluster", "single", "random")
COLUMNS = ("key", "label", "origin", "confidence")
METADATA_KEY = b"label_table"  # its JSON is in the parquet schema's metadata


@dataclass
class LabelTable:
    """n labelled samples in index order; a sample that is absent is unlabelled.

    Attributes:
        keys: n distinct ``SHARD/KEY``.
        labels: (n,) int32, each a number in ``metadata["classes"]``.
        origin: (n,) of str, each one of ``ORIGINS``.
        confidence: (n,) float32 in [0, 1]; 1 for a true label.
        probabilities: (n, classes) float32 whose rows sum to 1, or None where no soft labels were asked for.
        metadata: ``classes`` (names), ``fingerprint`` (of the shards), ``method``, and what made the table.
    """

    keys: list[str]
    labels: np.ndarray
    origin: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        return self.metadata["classes"]

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, rows: np.ndarray) -> "LabelTable":
        """The table of some rows (ascending int64), with the same metadata."""
        return LabelTable(
            [self.keys[row] for row in rows.tolist()],
            self.labels[rows],
            self.origin[rows],
            self.confidence[rows],
            None if self.probabilities is None else self.probabilities[rows],
            dict(self.metadata),
        )


def write_table(path: Path | str, table: LabelTable) -> None:
    """Writes the table as parquet; the file is absent or complete, even if the process is killed."""
    path = Path(path)
    columns = {
        "key": pa.array(table.keys, pa.string()),
        "label": pa.array(np.asarray(table.labels, np.int32)),
        "origin": pa.array(np.asarray(table.origin).tolist(), pa.string()).dictionary_encode(),
        "confidence": pa.array(np.asarray(table.confidence, np.float32)),
    }
    if table.probabilities is not None:
        rows, classes = table.probabilities.shape
        offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * classes)
        flat = pa.array(np.asarray(table.probabilities, np.float32).ravel())
        columns["probabilities"] = pa.ListArray.from_arrays(offsets, flat)
    described = {METADATA_KEY: json.dumps(table.metadata, ensure_ascii=False).encode()}
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata(described), buffer)
    make_parent(path)
    write_atomically(path, buffer.getvalue().to_pybytes())


def read_table(path: Path | str, *, probabilities: bool = True) -> LabelTable:
    """Reads a label table.

    Args:
        probabilities: whether to read soft labels, where there are some; they are large.

    Raises:
        UserError: the file is missing, damaged, no label table, or holds a value that no table may hold.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"label table {str(path)!r}: no such file (expected a parquet file that selfsup.label wrote)")
    try:
        with path.open("rb") as file:
            stored = pq.read_table(file, columns=None if probabilities else [*COLUMNS])
        described = json.loads((stored.schema.metadata or {})[METADATA_KEY])
        described["fingerprint"]  # noqa: B018  # what has none is no label table
        labels, confidence = (stored[name].to_numpy() for name in ("label", "confidence"))
        table = LabelTable(
            keys=stored["key"].to_pylist(),
            labels=labels.astype(np.int32),
            origin=np.array(stored["origin"].to_pylist(), dtype=np.str_),
            confidence=confidence.astype(np.float32),
            metadata=described,
        )
        classes = len(table.classes)
        if "probabilities" in stored.column_names:
            flat = stored["probabilities"].combine_chunks().flatten().to_numpy()
            table.probabilities = flat.astype(np.float32).reshape(len(table), classes)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"label table {str(path)!r}: damaged, or no table of selfsup.label ({reason})") from error
    outside = np.flatnonzero((table.labels < 0) | (table.labels >= classes))
    if outside.size:
        row = outside[0]
        raise UserError(
            f"label table {str(path)!r}: {table.keys[row]} has label {table.labels[row]}, "
            f"expected 0 to {classes - 1} (the table names {classes} classes)"
        )
    strange = sorted(set(table.origin.tolist()) - set(ORIGINS))
    if strange:
        raise UserError(f"label table {str(path)!r}: origin {strange[0]!r}, expected one of {', '.join(ORIGINS)}")
    return table


def existing_table(path: Path, origin: dict[str, Any]) -> LabelTable | None:
    """The table that the same command wrote before, or None where there is none.

    Args:
        origin: the part of the metadata that says how the table was made.

    Raises:
        UserError: the table is damaged, or was made in another way.
    """
    if not path.exists():
        return None
    table = read_table(path)
    refuse_changes(f"out={str(path)!r}", {name: table.metadata.get(name) for name in origin}, origin)
    return table


def merge(table: LabelTable, shards: Shards, into: Path | str) -> np.memmap:
    """Writes the labels as one array in index order, and maps it. Linear, shard by shard; atomic.

    Args:
        table: in index order, made for these shards.
        shards: the data set.
        into: the file to write; one process writes, the others open it with :func:`open_merged`.

    Returns:
        (shards.count,) int32, read-only, -1 where the table has no label.

    Raises:
        UserError: the table was made for other shards, names an unknown key, or is not in index order.
    """
    into = Path(into)
    if table.metadata["fingerprint"] != shards.fingerprint:
        raise UserError(
            f"the label table was made for other data: its fingerprint is {table.metadata['fingerprint']}, "
            f"that of {shards.directory!r} is {shards.fingerprint}"
        )
    temporary = into.with_name(f".{into.name}.{os.getpid()}")
    make_parent(into)
    start = cursor = 0
    try:
        with temporary.open("wb") as file:
            for count in shards.shard_counts.tolist():
                merged, rows = _merge_shard(table, cursor, shards.keys(start, start + count))
                file.write(merged.tobytes())
                start, cursor = start + count, cursor + rows
            if cursor < len(table):
                raise UserError(_misfit(table.keys[cursor], shards))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(into)
    finally:
        temporary.unlink(missing_ok=True)
    return open_merged(into)


def open_merged(path: Path | str) -> np.memmap:
    """The (count,) int32 array that :func:`merge` wrote, mapped read-only."""
    return np.memmap(path, dtype=np.int32, mode="r")


def aligned_labels(table: LabelTable, shards: Shards) -> np.ndarray:
    """What :func:`merge` writes, in memory: (shards.count,) int32, -1 where the table has no label."""
    with tempfile.TemporaryDirectory() as directory:
        return np.array(merge(table, shards, Path(directory) / "labels.bin"))


def _merge_shard(table: LabelTable, cursor: int, keys: list[str]) -> tuple[np.ndarray, int]:
    """The labels (len(keys),) of one shard, and how many rows of the table from ``cursor`` on belong to it."""
    merged = np.full(len(keys), -1, dtype=np.int32)
    rows = pa.array(table.keys[cursor : cursor + len(keys)], pa.string())
    positions = pc.index_in(rows, value_set=pa.array(keys, pa.string())).fill_null(-1).to_numpy()
    absent = np.flatnonzero(positions < 0)
    positions = positions[: absent[0]] if absent.size else positions  # the first key not here begins a later shard
    backwards = np.flatnonzero(np.diff(positions) <= 0)
    if backwards.size:
        key = table.keys[cursor + backwards[0] + 1]
        raise UserError(f"the label table is not in index order, or names a sample twice, at {key!r}")
    merged[positions] = table.labels[cursor : cursor + len(positions)]
    return merged, len(positions)


def _misfit(key: str, shards: Shards) -> str:
    """Why a key of the table found no place in the pass over the shards."""
    if _holds(key, shards):
        return f"the label table is not in index order, or names a sample twice, at {key!r}"
    return f"the label table names the sample {key!r}, which {shards.directory!r} does not hold"


def _holds(key: str, shards: Shards) -> bool:
    """Whether the shards hold the key, looking into its shard only."""
    start = 0
    for name, count in zip(shards.shard_names, shards.shard_counts.tolist(), strict=True):
        if Path(name).stem == key.partition("/")[0]:
            return key in shards.keys(start, start + count)
        start += count
    return False
