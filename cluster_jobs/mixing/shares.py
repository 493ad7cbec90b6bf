"""How many pictures each source gives to each class: whole numbers from shares, by the largest remainder."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from cluster_jobs.core.errors import UserError


def apportion(total: int, weights: Sequence[Fraction]) -> list[int]:
    """Whole numbers that sum to ``total``, in proportion to weights: the largest remainders are rounded up.

    Of equal remainders the first come first.
    """
    whole = sum(weights)
    exact = [total * weight / whole for weight in weights]
    counts = [int(number) for number in exact]
    by_remainder = sorted(range(len(weights)), key=lambda number: (counts[number] - exact[number], number))
    for number in by_remainder[: total - sum(counts)]:
        counts[number] += 1
    return counts


def read_shares(shares: dict[str, float]) -> dict[str, Fraction]:
    """The shares above 0, exactly as they were written.

    Raises:
        UserError: a share outside [0, 1], or shares that do not sum to 1 (a thousandth is let pass, for thirds).
    """
    told = " ".join(f"share_{name}={share:g}" for name, share in shares.items())
    if not all(0 <= share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-3:
        raise UserError(f"{told}: expected shares from 0 to 1 that sum to 1, they sum to {sum(shares.values()):g}")
    return {name: Fraction(str(share)) for name, share in shares.items() if share > 0}


def plan(count: int, shares: Sequence[Fraction], capacity: np.ndarray, fill: bool) -> np.ndarray:
    """How many pictures of each class come from each source: (classes, sources) int64.

    Classes get equal parts of ``count``, and within a class sources get their shares, both by the largest remainder.

    Args:
        capacity: (classes, sources) int64, what there is; above it no source is asked.
        fill: whether what a source lacks in a class is taken from the others, in proportion to their shares. Without it
            the result may exceed the capacity, which the caller refuses.
    """
    classes = len(capacity)
    wanted = np.zeros_like(capacity)
    for label, part in enumerate(apportion(count, [Fraction(1)] * classes)):
        wanted[label] = apportion(part, shares)
        while fill and (wanted[label] > capacity[label]).any() and part <= capacity[label].sum():
            full = wanted[label] >= capacity[label]
            wanted[label, full] = capacity[label, full]
            open_ = np.flatnonzero(~full).tolist()
            rest = part - int(wanted[label, full].sum())
            wanted[label, open_] = apportion(rest, [shares[place] for place in open_])
    return wanted
