"""How a label budget is drawn: the share of each class's labels that training may see.

The draw depends on the samples' keys and a seed alone, so it is the same on every machine, and the budget of a smaller
fraction is part of the budget of a larger one.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.seeds import key_hash


def check_fraction(fraction: float) -> None:
    """Raises UserError unless 0 < fraction <= 1."""
    if not 0 < fraction <= 1:
        raise UserError(f"fraction={fraction}: expected a share of the labels, above 0 and at most 1")


def draw_budget(keys: Sequence[str], labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The samples whose labels a budget reveals: of the n samples of a class ⌈fraction·n⌉ with the smallest hash.

    The hash is that of (seed, key). The choice in a class does not depend on the other classes.

    Args:
        keys: N keys.
        labels: (N,) integers; a negative one means that the sample has no label.
        fraction: in (0, 1].
        seed: another seed chooses other keys.

    Returns:
        (n,) int64 indices, ascending.
    """
    check_fraction(fraction)
    exact = Fraction(str(fraction))  # 0.07 * 100 is 7.000000000000001 in floating point, and would reveal 8
    chosen: list[int] = []
    for label in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == label).tolist()
        members.sort(key=lambda index: (key_hash(seed, keys[index]), keys[index]))
        chosen += members[: math.ceil(exact * len(members))]
    return np.array(sorted(chosen), dtype=np.int64)
