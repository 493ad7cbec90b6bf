"""How many images of each class a pool is to have, from a user's CSV."""

from pathlib import Path

import numpy as np

from cluster_jobs.core.errors import UserError
from selfsup.labelling.csv_rows import class_number, composed, read_rows


def read_counts(file: Path, class_names: list[str]) -> np.ndarray:
    """The images of each class, (classes,) int64, from lines of ``class,count``; a class without a line gets none.

    A class is a name or a number. A first line whose second cell is no number is a header.

    Raises:
        UserError: one line that names the line of the file and what is wrong with it.
    """
    counts = np.zeros(len(class_names), np.int64)
    names, seen = [composed(name) for name in class_names], set()
    rows = list(read_rows(file, "counts", "class,count"))
    if rows and not _is_number(rows[0].second):
        rows = rows[1:]
    for row in rows:
        place = f"{file}, line {row.line}"
        number = class_number(row.first, names, place)
        if not row.second.isdecimal():
            raise UserError(f"{place}: {row.second!r} images of {row.first!r}, expected a number of at least 0")
        if number in seen:
            raise UserError(f"{place}: {row.first!r} is there twice")
        seen.add(number)
        counts[number] = int(row.second)
    if not counts.any():
        raise UserError(f"counts={str(file)!r}: asks for no image (expected lines of class,count)")
    return counts


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
