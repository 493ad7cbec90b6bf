"""The journal of a verification: one line of JSON for each checked shard, so that a killed verification can be resumed.

A shard counts as verified while its size and time of change are those in the journal, and as long as the index beside
it is the one that it was checked against.
"""

import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_atomically
from cluster_jobs.verification.checker import Damage

ShardId = tuple[str, int]  # split, number of the shard
Stamp = tuple[int, int]  # bytes, time of change in nanoseconds


def stamp(path: Path) -> Stamp | None:
    """A file's size and time of change, or None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Entry:
    """A shard's line: its offset in the file, the stamp that the shard had, and the number of findings."""

    offset: int
    stamp: Stamp | None
    samples: int
    shards: int


class Journal:
    """The lines of one verification; another identity, or ``fresh``, starts an empty journal.

    Args:
        identity: what the shards are checked against, as plain values.

    Raises:
        UserError: the file cannot be written or read, or another verification is writing it.
    """

    def __init__(self, path: Path, identity: dict[str, Any], *, fresh: bool = False) -> None:
        self.path = path
        head = json.dumps(identity).encode() + b"\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if fresh or not path.is_file() or not _begins_with(path, head):
                write_atomically(path, head)
            self._stream = open(path, "r+b")  # noqa: SIM115 it stays open while shards are verified
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{str(path)!r} is being written by another verify; wait for it, or give out=") from None
        except OSError as error:
            raise UserError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
        self.entries = self._scan()

    def _scan(self) -> dict[ShardId, Entry]:
        """The last line of every shard; a line that a kill left torn is cut off."""
        self._stream.seek(0)
        offset = len(self._stream.readline())
        entries: dict[ShardId, Entry] = {}
        for line in iter(self._stream.readline, b""):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise UserError(f"{str(self.path)!r} is damaged ({error}); begin anew with fresh=true") from error
            samples = sum(key is not None for key, _ in entry["damage"])
            mark = tuple(entry["stamp"]) if entry["stamp"] else None
            entries[entry["split"], entry["number"]] = Entry(offset, mark, samples, len(entry["damage"]) - samples)
            offset += len(line)
        self._stream.truncate(offset)
        self._stream.seek(offset)
        return entries

    def verified(self, shard_id: ShardId, now: Stamp | None) -> bool:
        """Whether a shard was verified and has not changed since."""
        entry = self.entries.get(shard_id)
        return entry is not None and now is not None and entry.stamp == now

    def add(self, shard_id: ShardId, mark: Stamp | None, damage: list[Damage]) -> None:
        """Adds the line of a shard that was checked."""
        samples = sum(item.key is not None for item in damage)
        self.entries[shard_id] = Entry(self._stream.tell(), mark, samples, len(damage) - samples)
        pairs = [(item.key, item.reason) for item in damage]
        entry = {"split": shard_id[0], "number": shard_id[1], "stamp": mark, "damage": pairs}
        self._stream.write(json.dumps(entry).encode() + b"\n")
        self._stream.flush()

    def damage(self, shard_id: ShardId, shard: str) -> Iterator[Damage]:
        """The damage that was found in one shard."""
        entry = self.entries[shard_id]
        if not entry.samples and not entry.shards:
            return
        end = self._stream.tell()
        self._stream.seek(entry.offset)
        line = json.loads(self._stream.readline())
        self._stream.seek(end)
        for key, reason in line["damage"]:
            yield Damage(shard, key, reason)


def _begins_with(path: Path, head: bytes) -> bool:
    with open(path, "rb") as stream:
        return stream.read(len(head)) == head
