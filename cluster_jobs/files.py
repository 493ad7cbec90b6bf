"""Files that are either absent or whole, whatever happens while they are written."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cluster_jobs.errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that it is either absent or whole, whatever happens: temporary name, fsync, rename."""
    write_parts(path, [content])


def write_parts(path: Path, parts: Iterable[bytes]) -> None:
    """Writes a file of many parts atomically, holding one at a time."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically, making the directory when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads JSON. Raises UserError naming the file when it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: unreadable ({error})") from error
