"""The data set of a verification (its splits and their shards), and the list of the damage that was found."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_jobs.core.errors import UserError
from cluster_jobs.verification.checker import INDEX_FILES, Damage, Shard, ShardDirectory, open_split
from cluster_jobs.verification.journal import Journal, stamp


@dataclass
class Data:
    """Splits by name ("" where the data is one directory of shards), with their shards and fingerprints."""

    splits: dict[str, ShardDirectory]
    shards: dict[str, list[Shard]]
    fingerprints: dict[str, str]

    def __iter__(self) -> Iterator[tuple[str, Shard]]:
        return ((name, shard) for name, shards in self.shards.items() for shard in shards)

    def path(self, name: str, shard: Shard) -> Path:
        return self.splits[name].directory / shard.file

    def identity(self) -> dict[str, Any]:
        """What the shards are checked against: fingerprints, and the stamps of the index files."""
        stamps = {name: [stamp(split.directory / file) for file in INDEX_FILES] for name, split in self.splits.items()}
        return {"version": 1, "fingerprints": self.fingerprints, "index": stamps}

    def size(self) -> tuple[int, int]:
        """Images and shards."""
        return sum(shard.count for _, shard in self), sum(map(len, self.shards.values()))


def open_data(directory: Path) -> Data:
    """A directory of shards, or the ``train`` and ``test`` in it.

    Raises:
        UserError: there are no shards, or their index is damaged.
    """
    directories = {
        name: directory / name for name in ("", "train", "test") if (directory / name / "index.json").is_file()
    }
    if not directories:
        raise UserError(f"data={str(directory)!r}: expected a directory with an index.json, or with train/ and test/")
    data = Data({}, {}, {})
    for name, split in {"": directory}.items() if "" in directories else directories.items():
        data.splits[name], data.shards[name], data.fingerprints[name] = open_split(split)
    return data


def totals(data: Data, journal: Journal) -> tuple[int, int]:
    """How many findings there are about samples, and about whole shards."""
    entries = [journal.entries[name, shard.number] for name, shard in data]
    return sum(entry.samples for entry in entries), sum(entry.shards for entry in entries)


def damaged(data: Data, journal: Journal) -> Iterator[tuple[str, Damage]]:
    """All damage with the name of its split, in the order of the shards."""
    return ((name, item) for name, shard in data for item in journal.damage((name, shard.number), shard.name))


def report(directory: str, data: Data, journal: Journal) -> Iterator[bytes]:
    """The list of damage as the parts of a JSON file."""
    images, shards = data.size()
    sample_findings, shard_findings = totals(data, journal)
    head = {
        "data": directory,
        "fingerprints": {name or ".": fingerprint for name, fingerprint in data.fingerprints.items()},
        "images": images,
        "shards": shards,
        "sample_findings": sample_findings,
        "shard_findings": shard_findings,
    }
    yield json.dumps(head, indent=1, ensure_ascii=False)[:-2].encode() + b',\n "damaged": ['
    separator = b"\n  "
    for name, item in damaged(data, journal):
        row = {"split": name, "sample": item.name, "reason": item.reason}
        yield separator + json.dumps(row, ensure_ascii=False).encode()
        separator = b",\n  "
    yield b"]\n}\n"
