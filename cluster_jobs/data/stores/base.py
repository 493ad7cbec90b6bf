"""The interface that a shard directory is read through, whether it is local or below a URL, and the names of locations.

A location is a string: a path, or a URL that begins with ``s3://``, ``gs://``, ``hf://``, ``http://`` or ``https://``.
Never make it a Path before :func:`is_remote` has said no, because a Path turns ``s3://`` into ``s3:/``.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from cluster_jobs.core.errors import UserError

BLOCK_BYTES = 4 << 20  # what a remote store reads at a time, and about what the stream's order keeps together

ShardBlock = tuple[str, int]  # shard, and the number of a piece of BLOCK_BYTES of it


class Store(Protocol):
    """The files of one shard directory, local or remote."""

    remote: bool  # whether reading ahead pays off

    def read(self, name: str, offset: int, size: int) -> bytes:
        """``size`` bytes of shard ``name`` from ``offset``; fewer only at the end of the shard.

        Raises:
            UnreadableShard: the shard cannot be read, or not any more.
        """

    def document(self, name: str) -> bytes | None:
        """A small file beside the shards; None where there is none."""

    def file(self, name: str, size: int) -> Path:
        """A local file with the content of ``name``, to be mapped into memory.

        Raises:
            UserError: it is missing, or has not ``size`` bytes.
        """

    def accept(self, index: dict[str, Any]) -> None:
        """Compares the shards with the index: each one, or where that would cost too many requests, as many as needed.

        Raises:
            UserError: a shard is missing, or its size is another one.
        """

    def prefetch(self, blocks: Iterable[ShardBlock]) -> None:
        """Begins to fetch blocks that will be read soon. Returns at once."""

    def advice(self) -> str:
        """What a user may have meant, where there is no index."""


def is_remote(location: str) -> bool:
    """Whether a location is a URL rather than a local path."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", location) is not None


def child(location: str, name: str) -> str:
    """The location of the file or directory ``name`` below another location. The query of a URL stays at its end."""
    if not is_remote(location):
        return os.path.join(location, name)
    if not location.startswith(("http://", "https://")):
        return f"{location.rstrip('/')}/{name}"
    address, mark, query = location.partition("?")
    return f"{address.rstrip('/')}/{quote(name)}{mark}{query}"


def damaged_index(where: str | Path, size: int) -> UserError:
    """The error for a file of an index that is missing or has not the expected ``size`` in bytes."""
    return UserError(f"{where}: damaged index, expected {size} bytes; pack the data again")
