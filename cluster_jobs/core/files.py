"""Atomic writing of files: a file is either absent or complete, even if the process is killed."""

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cluster_jobs.core.errors import UserError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextlib.contextmanager
def disk_errors_as_user_errors() -> Iterator[None]:
    """Turns an OSError raised inside that means a full or read-only disk, or missing permissions, into a UserError."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, PermissionError) and error.errno not in DISK_ERRORS:
            raise
        verb = "use" if isinstance(error, PermissionError) else "write"
        raise UserError(f"cannot {verb} {str(error.filename or 'a file')!r}: {error.strerror}") from error


def append_line(path: Path, line: str) -> None:
    """Adds a line to a text file.

    Raises:
        UserError: the file system refuses; a torn last line may be left.
    """
    try:
        with open(path, "a") as stream:
            stream.write(f"{line}\n")
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, syncs it and renames it, so that it is either absent or complete."""
    write_parts(path, [content])


def write_parts(path: Path, parts: Iterable[bytes]) -> None:
    """Writes a file of many parts atomically, holding one at a time."""
    temporary = temporary_path(path)
    try:
        with open(temporary, "wb") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        remove(temporary)
        raise UserError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def temporary_path(path: Path) -> Path:
    """Where this process makes a file that is not whole yet; no other process does, on any machine."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def remove(path: Path) -> None:
    """Removes a half-written file where it exists and the file system still lets us."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Waits until no other process, on any node, holds the existing file ``path``; holds it meanwhile."""
    with open(path, "r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def make_parent(path: Path) -> None:
    """Makes the parent directory of ``path``. Raises UserError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the directory {str(path.parent)!r}: {error.strerror}") from error


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically, making the directory when it is missing."""
    make_parent(path)
    write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads JSON. Raises UserError naming the file when it is missing or damaged."""
    try:
        return parse_json(path.read_bytes(), path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: unreadable ({error})") from error


def parse_json(content: bytes, origin: Path | str) -> Any:
    """What a file of JSON says. Raises UserError naming the file when it is damaged."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin}: unreadable ({error})") from error
