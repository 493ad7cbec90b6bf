"""Shards on a web server or in an object store, read by range through fsspec and a cache of blocks on this machine.

The small files of the index are fetched once and mapped from the cache. Of the tars, blocks of ``BLOCK_BYTES`` are
fetched, those that the stream will need soon in the background. A cached file belongs to a URL, its index and the
version of its labels, so data that were packed again are never read from older cached blocks.
"""

import hashlib
import json
import os
import posixpath
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec

from cluster_jobs.core.errors import UnreadableShard, UserError
from cluster_jobs.data.stores.base import BLOCK_BYTES, ShardBlock, child, damaged_index
from cluster_jobs.data.stores.block_cache import BlockCache
from cluster_jobs.data.stores.read_ahead import THREADS, ReadAhead
from cluster_jobs.data.stores.retries import ShortBody, attempt

EXTRAS = {"http": "remote", "https": "remote", "s3": "remote", "hf": "remote", "gs": "gs"}  # extras of our own package
CONNECT_SECONDS, SILENT_SECONDS, WHOLE_SECONDS = 15, 30, 300  # time-outs: to connect, between two bytes, of a request
VERSION_FIELDS = (  # fields of the file systems' metadata that change with a file
    ("size", "ETag", "etag", "Content-MD5", "md5Hash", "Digest", "Last-Modified", "LastModified", "updated", "mtime")
    + ("blob_id", "VersionId", "generation")
)


class RemoteStore:
    """The files below a URL. Every process connects for itself, so that a store survives being forked or sent."""

    remote = True

    def __init__(self, location: str) -> None:
        self.location = location
        self._connection: _Connection | None = None
        self._connect()  # an unknown scheme or a missing package is refused now
        self._cache = BlockCache.from_environment()
        self._shards: dict[str, tuple[int, int]] = {}  # its number and bytes
        self._folder = ""
        self._mapped: set[str] = set()

    def document(self, name: str) -> bytes | None:
        url = child(self.location, name)
        try:
            return attempt(lambda: self._connect().files.cat_file(url), redacted(url))
        except FileNotFoundError:
            return None

    def accept(self, index: dict[str, Any]) -> None:
        """Trusts the index, as a server may hold many thousand shards; asks the server for the labels' file alone."""
        for number, shard in enumerate(index["shards"]):
            if posixpath.isabs(shard["name"]):
                raise UserError(
                    f"{redacted(self.location)}: its index names the shard {shard['name']!r} by a path of another "
                    "machine; index the shards in their own directory"
                )
            self._shards[shard["name"]] = number, shard["bytes"]
        labels = self._facts("labels.bin")
        self._range("labels.bin", 0, 1)  # refuses a server without ranges before anything large is asked for
        version = {field: str(labels[field]) for field in VERSION_FIELDS if field in labels}
        identity = json.dumps([redacted(self.location), index, version], sort_keys=True)
        self._folder = hashlib.sha256(identity.encode()).hexdigest()[:32]

    def file(self, name: str, size: int) -> Path:
        path = self._cache.path(self._folder, name)
        with self._cache.claim(path):
            if not self._cache.touch(path) or os.path.getsize(path) != size:
                if self._facts(name)["size"] not in (size, None):
                    raise damaged_index(redacted(child(self.location, name)), size)
                with self._cache.writing(path, size) as descriptor, ThreadPoolExecutor(THREADS) as pool:

                    def copy(start: int) -> None:
                        content = self._range(name, start, min(start + BLOCK_BYTES, size))
                        os.pwrite(descriptor, content, start)

                    list(pool.map(copy, range(0, size, BLOCK_BYTES)))
        self._mapped.add(path)
        return Path(path)

    def read(self, name: str, offset: int, size: int) -> bytes:
        end = min(offset + size, self._shards[name][1])
        pieces = []
        while offset < end:
            number, begin = divmod(offset, BLOCK_BYTES)
            pieces.append(self._piece((name, number), begin, min(end - offset, BLOCK_BYTES - begin)))
            offset += len(pieces[-1])
        return b"".join(pieces)

    def _piece(self, block: ShardBlock, begin: int, size: int) -> bytes:
        """``size`` bytes from ``begin`` of a block, from the cache or else fetched."""
        while True:
            self._connect().ahead.settle(block)
            content = self._cache.read(self._path(block), begin, size)
            if content is not None:
                return content
            fetched = self._fetch(block)
            if fetched is not None:
                return fetched[begin : begin + size]

    def prefetch(self, blocks: Iterable[ShardBlock]) -> None:
        for path in self._mapped:
            self._cache.touch(path)  # in use for as long as samples are read
        ahead = self._connect().ahead
        for block in blocks:
            if not self._cache.touch(self._path(block)):
                ahead.submit(block)

    def advice(self) -> str:
        inside = child(self.location, "train")
        url = child(inside, "index.json")
        try:
            attempt(lambda: self._connect().files.info(url), redacted(url))
        except FileNotFoundError:
            return "make it with python -m cluster_jobs.pack and copy it there"
        return f"did you mean {redacted(inside)!r}?"

    def _path(self, block: ShardBlock) -> str:
        name, number = block
        return self._cache.path(self._folder, f"{self._shards[name][0]:06d}-{number:06d}")

    def _fetch(self, block: ShardBlock) -> bytes | None:
        """Fetches a block into the cache and returns it; None where another process did so meanwhile."""
        path = self._path(block)
        with self._cache.claim(path):
            if self._cache.touch(path):
                return None
            name, number = block
            start = number * BLOCK_BYTES
            content = self._range(name, start, min(start + BLOCK_BYTES, self._shards[name][1]))
            with self._cache.writing(path, len(content)) as descriptor:
                os.pwrite(descriptor, content, 0)
        return content

    def _facts(self, name: str) -> dict[str, Any]:
        url = child(self.location, name)
        try:
            return attempt(lambda: self._connect().files.info(url), redacted(url))
        except FileNotFoundError:
            raise UserError(
                f"{redacted(url)}: damaged index, this file of it is missing; pack the data again"
            ) from None

    def _range(self, name: str, start: int, stop: int) -> bytes:
        """Exactly the bytes ``start ≤ … < stop`` of a file."""
        url = beside(self.location, name)

        def action() -> bytes:
            content = self._connect().files.cat_file(url, start=start, end=stop)
            if len(content) > stop - start:
                raise UnreadableShard(
                    f"{redacted(url)}: the server ignores ranges and sends whole files; use another one"
                )
            if len(content) < stop - start:
                raise ShortBody(f"{len(content)} of {stop - start} bytes came")
            return content

        try:
            return attempt(action, f"{redacted(url)} (bytes {start} to {stop})")
        except FileNotFoundError:
            raise UnreadableShard(f"{redacted(url)}: the index names this file, but it is missing") from None

    def _connect(self) -> "_Connection":
        if self._connection is None or self._connection.process != os.getpid():
            self._connection = _Connection(self)
        return self._connection

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None}


class _Connection:
    """One process's connection: neither a file system of fsspec nor a thread survives a fork."""

    def __init__(self, store: RemoteStore) -> None:
        self.process = os.getpid()
        self.files = open_filesystem(store.location)
        self.ahead = ReadAhead(store._fetch)


def open_filesystem(location: str) -> fsspec.AbstractFileSystem:
    """The fsspec file system of a URL, which retries nothing: that is left to ``attempt``.

    Raises:
        UserError: an unknown scheme, or a package that is missing.
    """
    scheme = location.partition("://")[0]
    if scheme not in EXTRAS:
        expected = ", ".join(f"{name}://" for name in EXTRAS)
        raise UserError(f"{redacted(location)!r}: unknown scheme {scheme}://, expected a local path or {expected}")
    try:
        files = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **_options(scheme))
    except ImportError as error:
        reason = " ".join(str(error).split())
        install = f"pip install 'label-efficient-gan[{EXTRAS[scheme]}]'"
        raise UserError(
            f"{redacted(location)!r}: {scheme}:// needs a package that is missing: {install} ({reason})"
        ) from error
    if scheme == "s3":
        files.retries = 1
    return files


def _options(scheme: str) -> dict[str, Any]:
    if scheme == "s3":
        once = {"total_max_attempts": 1}
        return {"config_kwargs": {"connect_timeout": CONNECT_SECONDS, "read_timeout": SILENT_SECONDS, "retries": once}}
    if scheme == "gs":
        return {"requests_timeout": SILENT_SECONDS}
    if scheme == "hf":
        return {}
    import aiohttp

    timeout = aiohttp.ClientTimeout(WHOLE_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    # uncompressed: a range of a compressed body would be of no use
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}, "headers": {"Accept-Encoding": "identity"}}


def beside(location: str, name: str) -> str:
    """The URL of a file that an index names, which may be in a neighbouring directory of the same server or bucket."""
    up = 0
    while name.startswith("../"):
        name, up = name[3:], up + 1
    if not up:
        return child(location, name)
    address, mark, query = location.partition("?") if location.startswith("http") else (location, "", "")
    scheme, _, path = address.partition("://")
    root, *parts = path.rstrip("/").split("/")
    if up > len(parts) or ".." in name.split("/"):
        raise UserError(f"{redacted(location)}: its index names a shard outside of the server or bucket")
    return child(f"{scheme}://{'/'.join([root, *parts[:-up]])}{mark}{query}", name)


def redacted(url: str) -> str:
    """A URL without its query and password, which may be secrets."""
    address = url.partition("?")[0] if url.startswith("http") else url
    scheme, mark, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"
