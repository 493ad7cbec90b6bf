"""Which class of the real data each class of a pool means, and which labels the pool's GAN was trained with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.data.label_table import aligned_labels, read_table
from cluster_jobs.data.shards import Shards
from s3gan.metrics.trained import NotAvailable

UNINFORMED = ("single", "random", "none")  # how labels were made that say nothing of a class


def budget_labels(budget: str, table: dict[str, Any], train: Shards, names: Sequence[str]) -> np.ndarray:
    """The labels that were revealed, as classes of the data: (train.count,) int64, -1 where none was.

    Args:
        budget: a label table; "" takes the rows of origin `true` from the table that the generator was trained with.
        table: that table's metadata and `path`.
        names: the data's classes.

    Raises:
        NotAvailable: no budget is given, and the generator's table holds none.
        UserError: the table is damaged or of other data.
    """
    if budget:
        known = read_table(budget)
    elif not table.get("path") or not Path(table["path"]).is_file():
        raise NotAvailable("the label table of the run is not known or gone; budget=TABLE names the revealed labels")
    else:
        known = read_table(table["path"])
    labels = aligned_labels(known.select(np.flatnonzero(known.origin == "true")), train)
    if not (labels >= 0).any():
        raise NotAvailable(f"{budget or table['path']} holds no revealed labels; budget=TABLE names them")
    return renumber(labels, classes_by_name(known.classes, names))


def pool_classes(
    names: Sequence[str],
    table: dict[str, Any],
    train: Shards,
    data_names: Sequence[str],
    budget: Callable[[], np.ndarray],
) -> np.ndarray:
    """For each class of a pool the class of the data that it means, int64; -1 for none.

    Classes go by their names; clusters by the majority of the budget's samples in them, which `budget` returns.

    Raises:
        NotAvailable: the classes mean nothing (single, random), or clusters come without a budget or their table.
    """
    method = table.get("method")
    if method in UNINFORMED:
        raise NotAvailable(f"classes that come from labels of method {method!r} stand for nothing")
    if method != "kmeans":
        numbers = classes_by_name(names, data_names)
        if (numbers < 0).all():
            raise NotAvailable(f"no class of the pool ({', '.join(names[:5])}, …) has the name of a class of the data")
        return numbers
    if not Path(table.get("path", "")).is_file():
        raise NotAvailable(f"the table of clusters {table.get('path')!r} is gone")
    return classes_by_majority(aligned_labels(read_table(table["path"]), train), budget(), len(names))


def classes_by_name(pool: Sequence[str], data: Sequence[str]) -> np.ndarray:
    """For each class of a pool the number of the data's class of that name, int64; -1 where there is none."""
    number_of = {name: number for number, name in enumerate(data)}
    return np.array([number_of.get(name, -1) for name in pool], np.int64)


def classes_by_majority(clusters: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """For each of `count` clusters the class that most of the budget's samples in it have, int64; -1 without any.

    clusters, labels: (n,) cluster and true class, a negative one is left out. The smaller class wins a tie.
    """
    kept = (clusters >= 0) & (labels >= 0)
    votes = np.zeros((count, int(labels.max(initial=0)) + 1), np.int64)
    np.add.at(votes, (clusters[kept], labels[kept]), 1)
    return np.where(votes.any(1), votes.argmax(1), -1)


def renumber(labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Labels (n,) with each class c >= 0 replaced by numbers[c]; a negative label stays -1."""
    return np.where(labels >= 0, numbers[np.maximum(labels, 0)], -1)
