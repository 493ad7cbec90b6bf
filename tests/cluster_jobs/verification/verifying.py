"""Verifying in this process: the command, what its list names, and bytes of shards to change."""

import json
import tarfile
from pathlib import Path

from cluster_jobs.verify import main


def verify(data: Path, *words: str) -> int:
    return main([f"data={data}", "workers=0", *words])


def rows(data: Path) -> list[tuple[str, str]]:
    """Everything that the list names, with its reason."""
    return [(row["sample"], row["reason"]) for row in json.loads((data / "verify.json").read_text())["damaged"]]


def found(data: Path) -> dict[str, str]:
    """The same where nothing is named twice."""
    listed = rows(data)
    assert len(dict(listed)) == len(listed)
    return dict(listed)


def member(path: Path, name: str) -> tarfile.TarInfo:
    with tarfile.open(path) as tar:
        return tar.getmember(name)


def change(path: Path, offset: int, content: bytes) -> None:
    with open(path, "r+b") as stream:
        stream.seek(offset)
        stream.write(content)


def flip(path: Path, offset: int) -> None:
    change(path, offset, bytes([path.read_bytes()[offset] ^ 1]))
