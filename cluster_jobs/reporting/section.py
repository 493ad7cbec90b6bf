"""What a stage leaves behind for the report: ``report/NAME.json`` with a text, a table and pictures beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster_jobs.core.files import write_json


def write_section(
    directory: Path,
    name: str,
    *,
    title: str,
    text: str = "",
    columns: Sequence[str] | None = None,
    rows: Sequence[Sequence[Any]] | None = None,
    pictures: Sequence[tuple[str, str]] = (),
) -> None:
    """Writes ``directory/report/NAME.json``.

    Args:
        columns, rows: a table; cells are text or numbers.
        pictures: (file, caption) pairs; a file is relative to ``directory/report``.
    """
    table = None if columns is None else {"columns": list(columns), "rows": [list(row) for row in rows or []]}
    shown = [{"file": file, "caption": caption} for file, caption in pictures]
    section = {"title": title, "text": text, "table": table, "pictures": shown}
    write_json(directory / "report" / f"{name}.json", section)
