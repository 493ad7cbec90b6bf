"""True labels: the labels training may use (the "budget"), revealed from the shards, or the user's own, from a CSV.

budget.py draws the budget. This is the only source of true labels in training.
"""

from pathlib import Path

import numpy as np

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.label_table import LabelTable
from cluster_jobs.data.shards import Shards
from selfsup.labelling.budget import draw_budget
from selfsup.labelling.csv_rows import Row, class_number, composed, read_rows


def reveal(shards: Shards, fraction: float, seed: int) -> LabelTable:
    """The label table of a budget: a fraction of the labels of each class, of the samples that have a ``.cls``.

    Raises:
        UserError: the fraction is not in (0, 1], or no sample has a label.
    """
    labels = np.asarray(shards.hidden_labels())
    if not (labels >= 0).any():
        raise UserError(f"{shards.directory!r}: no sample has a label (.cls) to reveal; method=import brings your own")
    classes = shards.classes or [str(number) for number in range(int(labels.max()) + 1)]
    if labels.max() >= len(classes):
        raise UserError(f"{shards.directory!r}: a label is {labels.max()}, but its index names {len(classes)} classes")
    chosen = draw_budget(shards.keys(), labels, fraction, seed)
    return _true_table(shards, chosen, labels[chosen], classes, fraction=fraction)


def import_labels(shards: Shards, file: Path | str) -> LabelTable:
    """The user's own labels: a CSV of ``name,class`` lines, with or without a header line.

    A name is ``SHARD/KEY`` or the original file name that pack keeps in the sample's annotation; a class is a name or a
    number. Where the shards' index names no classes, the names found in the file become the classes, sorted.

    Raises:
        UserError: one line that names the line of the file and what is wrong with it.
    """
    file = Path(file)
    rows = list(read_rows(file, "file", "name,class"))
    index_of = _find(shards, {row.first for row in rows})
    known = [composed(name) for name in shards.classes]
    if rows and _is_header(rows[0], index_of, known):
        rows = rows[1:]
    if not rows:
        raise UserError(f"{file}: no labels (expected lines of name,class)")
    names = known or _classes_of(rows)
    given: dict[int, tuple[int, int]] = {}  # sample → (label, line): as large as the budget, not as the data
    for row in rows:
        if row.first not in index_of:
            raise UserError(
                f"{file}, line {row.line}: no sample is called {row.first!r} in {shards.directory!r} "
                "(expected SHARD/KEY or an original file name)"
            )
        index, label = index_of[row.first], class_number(row.second, names, f"{file}, line {row.line}")
        if index == AMBIGUOUS:
            raise UserError(
                f"{file}, line {row.line}: several samples are called {row.first!r}; write SHARD/KEY instead"
            )
        earlier, line = given.setdefault(index, (label, row.line))
        if earlier != label:
            raise UserError(
                f"{file}, line {row.line}: {row.first!r} is {names[label]!r} here and {names[earlier]!r} in line {line}"
            )
    indices = np.array(sorted(given), dtype=np.int64)
    labels = np.array([given[index][0] for index in indices.tolist()], dtype=np.int32)
    return _true_table(shards, indices, labels, shards.classes or names, fraction=len(indices) / len(shards))


def _true_table(
    shards: Shards, indices: np.ndarray, labels: np.ndarray, classes: list[str], fraction: float
) -> LabelTable:
    return LabelTable(
        keys=[shards.key(index) for index in indices.tolist()],
        labels=labels.astype(np.int32),
        origin=np.full(len(indices), "true"),
        confidence=np.ones(len(indices), np.float32),
        metadata={"classes": list(classes), "fraction": fraction},
    )


AMBIGUOUS = -1  # in place of an index


def _find(shards: Shards, names: set[str]) -> dict[str, int]:
    """The index of each name that the shards hold: a key, an original file name, or the last part of one.

    ``AMBIGUOUS`` is the entry of a name that several samples have.
    """
    keys = _find_keys(shards, names)
    wanted = names - set(keys)
    whole: dict[str, int] = {}
    last_part: dict[str, int] = {}
    for index in range(len(shards) if wanted else 0):
        file = composed(str((shards.annotation(index) or {}).get("file", "")))
        for index_of, name in ((whole, file), (last_part, file.rpartition("/")[2])):
            if name in wanted:
                index_of[name] = AMBIGUOUS if name in index_of else index
    return last_part | whole | keys


def _find_keys(shards: Shards, names: set[str]) -> dict[str, int]:
    """The index of each name that is a ``SHARD/KEY``, reading only the keys of the shards that are named."""
    named = {name.partition("/")[0] for name in names}
    index_of: dict[str, int] = {}
    start = 0
    for shard, count in zip(shards.shard_names, shards.shard_counts.tolist(), strict=True):
        if Path(shard).stem in named:
            keys = shards.keys(start, start + count)
            index_of.update((key, index) for index, key in enumerate(keys, start) if key in names)
        start += count
    return index_of


def _is_header(row: Row, index_of: dict[str, int], classes: list[str]) -> bool:
    """Whether the first line is a header: its name is no sample's and has no "." or "/", and its class is unknown."""
    return row.first not in index_of and not set("./") & set(row.first) and row.second not in classes


def _classes_of(rows: list[Row]) -> list[str]:
    """The classes that occur in a file: numbers up to the largest, or names in sorted order."""
    labels = {row.second for row in rows}
    if labels and all(label.isdecimal() for label in labels):
        return [str(number) for number in range(max(map(int, labels)) + 1)]
    return sorted(labels)
