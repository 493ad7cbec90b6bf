"""A section of the report: a text, a table and pictures, which a stage writes below ``report/`` in its output."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_jobs.core.files import write_atomically, write_json


@dataclass(frozen=True)
class Picture:
    """A PNG of a section with its caption.

    Attributes:
        file: its path, relative to the directory of the section's JSON file.
        png: its content; None where the file is already there.
    """

    file: str
    caption: str
    png: bytes | None = None


@dataclass(frozen=True)
class Section:
    """What becomes ``report/NAME.json`` with its pictures beside it.

    Attributes:
        text: paragraphs, separated by empty lines.
        columns, rows: a table; cells are text or numbers, None is shown as n/a.
    """

    name: str
    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    columns: Sequence[str] | None = None
    rows: Sequence[Sequence[Any]] | None = None

    def write(self, directory: Path) -> list[Path]:
        """Writes ``directory/report/NAME.json`` and the pictures; returns the paths of all its pictures."""
        report = directory / "report"
        report.mkdir(parents=True, exist_ok=True)
        for picture in self.pictures:
            if picture.png is not None:
                write_atomically(report / picture.file, picture.png)
        table = None if self.columns is None else {"columns": list(self.columns), "rows": [*map(list, self.rows or [])]}
        pictures = [{"file": picture.file, "caption": picture.caption} for picture in self.pictures]
        content = {"title": self.title, "text": self.text, "table": table, "pictures": pictures}
        write_json(report / f"{self.name}.json", content)
        return [report / picture.file for picture in self.pictures]


def left_out(name: str, title: str, reason: str) -> Section:
    """The section of something that could not be made, which replaces an older section of that name."""
    return Section(name, title, f"Left out: {reason}.")
