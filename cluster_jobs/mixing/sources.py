"""The sources of a mixture: the real budget, whose labels come from a label table, and pools with their own."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import shape_text
from cluster_jobs.data.label_table import aligned_labels, read_table
from cluster_jobs.data.pool import read_labels, read_pool
from cluster_jobs.data.shards import Shards

REAL = "real"
SOURCES = (REAL, "gan", "refined")  # of two duplicates the one of the earlier source stays


@dataclass(frozen=True)
class MixSource:
    """Labelled pictures of one origin. It holds index arrays; pictures stay in their shards."""

    name: str  # of SOURCES
    directory: str
    classes: list[str]
    indices: np.ndarray  # (n,) int64, the samples that have a label, ascending
    labels: np.ndarray  # (n,) int32, numbers in `classes`
    provenance: dict[str, Any]  # what decides the source's pictures and labels, and what made them

    @cached_property
    def shards(self) -> Shards:
        return Shards(self.directory)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open shards, whose index is large: every worker process opens its own."""
        return {name: value for name, value in self.__dict__.items() if name != "shards"}

    def identity(self) -> dict[str, Any]:
        """What decides the source's pictures and labels; equal for one that has moved."""
        return {name: value for name, value in self.provenance.items() if name not in ("pool", "label_table")}

    def keys(self, rows: np.ndarray) -> list[str]:
        """``SHARD/KEY`` of rows (m,) int64 of `indices`."""
        return [self.shards.key(int(index)) for index in self.indices[rows]]


def open_pool(name: str, directory: str) -> MixSource:
    """A pool with its labels.

    Raises:
        UserError: no shards, no pool.json (labels of plain shards may be hidden ones), or no labels.
    """
    shards = Shards(directory)
    made_by = read_pool(shards)
    if made_by is None:
        raise UserError(
            f"{name}={directory!r} holds no pool.json: expected a pool that s3gan.generate, simgan.refine or "
            "cluster_jobs.mix wrote (real images enter as real= with labels=)"
        )
    labels, classes = read_labels(shards)
    indices = np.flatnonzero(labels >= 0)
    if not indices.size:
        raise UserError(f"{name}={directory!r}: none of its images has a label")
    provenance = {
        "fingerprint": shards.fingerprint,
        "labels_sha256": hashlib.sha256(labels.astype("<i4").tobytes()).hexdigest(),
        "pool": made_by,
    }
    return MixSource(name, directory, classes, indices, labels[indices], provenance)


def open_real(directory: str, table: str) -> MixSource:
    """The real images whose labels were revealed: the rows of origin ``true`` of a label table.

    Raises:
        UserError: no shards, no label table, one of other shards, or one without true labels.
    """
    shards, stored = Shards(directory), read_table(table, probabilities=False)
    true = stored.select(np.flatnonzero(stored.origin == "true"))
    if not len(true):
        raise UserError(f"labels={table!r} holds no revealed label (origin true): expected a budget of selfsup.label")
    with open(table, "rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    labels = aligned_labels(true, shards)
    indices = np.flatnonzero(labels >= 0)
    provenance = {
        "fingerprint": shards.fingerprint,
        "label_table": stored.metadata,
        "label_table_sha256": sha256,
        "labels_left_out": len(stored) - len(true),  # inferred ones
    }
    return MixSource(REAL, directory, stored.classes, indices, labels[indices], provenance)


def match(sources: list[MixSource]) -> tuple[list[str], list[MixSource], dict[str, list[str]]]:
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
        by_name = {name: number for number, name in enumerate(first.classes)}
        numbers = np.array([by_name.get(name, -1) for name in source.classes], np.int32)
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
            MixSource(
                source.name,
                source.directory,
                first.classes,
                source.indices[kept],
                labels[kept],
                source.provenance,
            )
        )
    return first.classes, matched, left_out
