"""Reads the two-column CSV files that users write, and the class names in them."""

import csv
import difflib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster_jobs.core.errors import UserError


@dataclass(frozen=True)
class Row:
    """A line's two cells, without the spaces around them and with accents composed."""

    line: int  # from 1
    first: str
    second: str


def read_rows(file: Path, key: str, columns: str) -> Iterator[Row]:
    """The lines of a CSV in UTF-8, empty ones left out.

    Args:
        key: the configuration key whose value the file is, for messages.
        columns: what a line is expected to hold, likewise: ``name,class``.

    Raises:
        UserError: the file is unreadable, or a line has another number of cells.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != 2:
                    raise UserError(f"{file}, line {reader.line_num}: {len(cells)} columns, expected {columns}")
                yield Row(reader.line_num, *(composed(cell.strip()) for cell in cells))
    except OSError as error:
        raise UserError(f"{key}={str(file)!r}: cannot read it ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{key}={str(file)!r}: no CSV in UTF-8 ({error})") from error


def composed(name: str) -> str:
    """The name with composed accents (Unicode NFC): file systems decompose them, spreadsheets compose them."""
    return unicodedata.normalize("NFC", name)


def class_number(cell: str, classes: Sequence[str], where: str) -> int:
    """The class that a cell names, by its (composed) name or else its number (digits' classes are named "0" to "9").

    Raises:
        UserError: no such class; ``where`` names the cell's file and line.
    """
    if cell in classes:
        return classes.index(cell)
    if cell.isdecimal() and int(cell) < len(classes):
        return int(cell)
    near = difflib.get_close_matches(cell, classes, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(classes[:20])}"
    raise UserError(f"{where}: unknown class {cell!r}; {hint} or a number below {len(classes)}")
