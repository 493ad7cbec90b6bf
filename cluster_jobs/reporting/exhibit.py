"""One section of a report as an object: a text that says what to look for, pictures, a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_jobs.core.files import write_atomically
from cluster_jobs.reporting.section import write_section


@dataclass(frozen=True)
class Picture:
    """A PNG, the name of its file and its caption."""

    file: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Exhibit:
    """Becomes `report/NAME.json` with its pictures beside it."""

    name: str
    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    columns: Sequence[str] | None = None
    rows: Sequence[Sequence[Any]] | None = None

    def write(self, out: Path, origin: str = "") -> str:
        """Writes the section and its pictures; `origin` says what drew them. Returns a line that says what was done."""
        (out / "report").mkdir(parents=True, exist_ok=True)
        for picture in self.pictures:
            write_atomically(out / "report" / picture.file, picture.png)
        write_section(
            out,
            self.name,
            title=self.title,
            text="\n\n".join(part for part in (self.text, origin) if part),
            columns=self.columns,
            rows=self.rows,
            pictures=[(picture.file, picture.caption) for picture in self.pictures],
        )
        files = [str(out / "report" / picture.file) for picture in self.pictures]
        return f"{self.title}: {', '.join(files) or self.text}"


def left_out(name: str, title: str, reason: str) -> Exhibit:
    """The section of a part that could not be made; it takes the place of an older one."""
    return Exhibit(name, title, f"Left out: {reason}.")
