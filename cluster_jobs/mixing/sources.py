"""The sources of a mixture: the real budget, whose labels come from a label table, and pools with their own."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import parse_json
from cluster_jobs.data.images import shape_text
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores.base import child

REAL = "real"
SOURCES = (REAL, "gan", "refined")  # of two duplicates the one of the earlier source stays
TABLE = b"label_table"  # its JSON stands in the parquet schema's metadata


@dataclass(frozen=True)
class Source:
    """Labelled pictures of one origin. It holds index arrays; pictures stay in their shards."""

    name: str  # of SOURCES
    directory: str
    classes: list[str]
    indices: np.ndarray  # (n,) int64, the samples that have a label, ascending
    labels: np.ndarray  # (n,) int32, places in `classes`
    provenance: dict[str, Any]  # what decides the source's pictures and labels, and what made them

    @cached_property
    def shards(self) -> Shards:
        return Shards(self.directory)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open shards, whose index is large: every worker process opens its own."""
        return {name: value for name, value in self.__dict__.items() if name != "shards"}

    def keys(self, rows: np.ndarray) -> list[str]:
        """``SHARD/KEY`` of rows (m,) int64 of `indices`."""
        return [self.shards.key(int(index)) for index in self.indices[rows]]


def open_pool(name: str, directory: str) -> Source:
    """A pool with its labels.

    Raises:
        UserError: no shards, no pool.json (labels of plain shards may be hidden ones), or no labels.
    """
    shards = Shards(directory)
    content = shards.store.document("pool.json")
    if content is None:
        raise UserError(
            f"{name}={directory!r} holds no pool.json: expected a pool that s3gan.generate, simgan.refine or "
            "cluster_jobs.mix wrote (real images enter as real= with labels=)"
        )
    made_by = parse_json(content, child(directory, "pool.json"))
    labels = np.asarray(shards.hidden_labels())  # a pool's labels are what it was made for: nothing is hidden
    indices = np.flatnonzero(labels >= 0)
    if not indices.size:
        raise UserError(f"{name}={directory!r}: none of its images has a label")
    classes = [*shards.classes, *map(str, range(len(shards.classes), int(labels.max()) + 1))]
    provenance = {
        "fingerprint": shards.fingerprint,
        "labels_sha256": hashlib.sha256(labels.astype("<i4").tobytes()).hexdigest(),
        "pool": made_by,
    }
    return Source(name, directory, classes, indices, labels[indices], provenance)


def open_real(directory: str, table: str) -> Source:
    """The real images whose labels were revealed: the rows of origin ``true`` of a label table.

    Raises:
        UserError: no shards, no label table, one of other shards, or one without true labels.
    """
    shards = Shards(directory)
    stored, described, sha256 = _read_table(Path(table))
    if described["fingerprint"] != shards.fingerprint:
        raise UserError(
            f"labels={table!r} was made for other data: its fingerprint is {described['fingerprint']}, that of "
            f"{directory!r} is {shards.fingerprint}"
        )
    true = stored.filter(pc.equal(pc.cast(stored["origin"], pa.string()), "true"))
    if not len(true):
        raise UserError(f"labels={table!r} holds no revealed label (origin true): expected a budget of selfsup.label")
    keys, values = true["key"].combine_chunks(), true["label"].to_numpy().astype(np.int32)
    indices, labels, start = [], [], 0
    for count in shards.shard_counts.tolist():
        found = pc.index_in(pa.array(shards.keys(start, start + count), pa.string()), value_set=keys)
        places = found.fill_null(-1).to_numpy()
        indices.append(start + np.flatnonzero(places >= 0))
        labels.append(values[places[places >= 0]])
        start += count
    joined = np.concatenate(indices)
    if len(joined) != len(true):
        raise UserError(f"labels={table!r}: {len(true) - len(joined)} keys are not in {directory!r}, or twice in it")
    provenance = {
        "fingerprint": shards.fingerprint,
        "label_table": described,
        "label_table_sha256": sha256,
        "labels_left_out": len(stored) - len(true),  # inferred ones
    }
    return Source(REAL, directory, described["classes"], joined, np.concatenate(labels), provenance)


def _read_table(path: Path) -> tuple[pa.Table, dict[str, Any], str]:
    """A label table's columns, its metadata, and the SHA-256 of the file."""
    if not path.is_file():
        raise UserError(f"labels={str(path)!r}: no such file (expected a label table that selfsup.label wrote)")
    try:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            stored = pq.read_table(stream, columns=["key", "label", "origin"])
        described = json.loads((stored.schema.metadata or {})[TABLE])
        labels, classes = stored["label"].to_numpy(), len(described["classes"])
        described["fingerprint"]  # noqa: B018  # a table without one is no label table
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"labels={str(path)!r}: damaged, or no table of selfsup.label ({reason})") from error
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(f"labels={str(path)!r}: a label outside 0 to {classes - 1}")
    return stored, described, sha256


def match(sources: list[Source]) -> tuple[list[str], list[Source], dict[str, list[str]]]:
    """Renumbers all sources to the classes of the first one, by name; other classes are left out.

    Returns:
        the classes, the sources, and by source the names of its classes that are left out.

    Raises:
        UserError: pictures of another size or mode, or a source that shares no class with the first.
    """
    first, matched, left_out = sources[0], [], {}
    for source in sources:
        if source.shards.shape != first.shards.shape:
            raise UserError(
                f"{source.name}={source.directory!r} holds pictures of {shape_text(source.shards.shape)}, "
                f"{first.name}={first.directory!r} of {shape_text(first.shards.shape)}: expected equal ones"
            )
        places = {name: number for number, name in enumerate(first.classes)}
        numbers = np.array([places.get(name, -1) for name in source.classes], np.int32)
        if (numbers < 0).all():
            raise UserError(
                f"{source.name}={source.directory!r}: none of its classes ({', '.join(source.classes[:5])}, …) has the "
                f"name of a class of {first.name} ({', '.join(first.classes[:5])}, …)"
            )
        labels = numbers[source.labels]
        kept = labels >= 0
        present = {source.classes[number] for number in np.unique(source.labels[~kept]).tolist()}
        left_out[source.name] = sorted(present)
        matched.append(
            Source(
                source.name,
                source.directory,
                first.classes,
                source.indices[kept],
                labels[kept],
                source.provenance,
            )
        )
    return first.classes, matched, left_out
