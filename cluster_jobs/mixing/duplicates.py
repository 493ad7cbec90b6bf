"""Which pictures are there twice: exactly, by a hash of their pixels, or nearly, by small thumbnails.

A thumbnail is the mean of each cell of a grid of 8 x 8 cells, channel by channel. The distance of two is the mean
absolute difference in grey levels (0 to 255). Taking means never makes pictures differ more: where pixels differ by at
most d on average, thumbnails do too, where sides are multiples of 8 (up to their rounding, half a level each).
"""

import hashlib

import numpy as np

GRID = 8  # cells a side


def thumbnail(image: np.ndarray) -> np.ndarray:
    """The thumbnail of a picture uint8 (C, H, W): uint8 (C * cells,), 8 x 8 cells where it has as many pixels."""
    rows, columns = (np.linspace(0, side, min(GRID, side) + 1).astype(int) for side in image.shape[1:])
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows[:-1], axis=1), columns[:-1], axis=2)
    return np.rint(sums / np.outer(np.diff(rows), np.diff(columns))).astype(np.uint8).ravel()


def signature(image: np.ndarray) -> tuple[bytes, np.ndarray]:
    """The signature of a picture: a hash of its pixels, 16 bytes, and its thumbnail."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest(), thumbnail(image)


def exact(hashes: np.ndarray) -> np.ndarray:
    """For each picture the first one that is equal: (n,) int64, its own number where it is the first.

    Args:
        hashes: (n, 16) uint8 of :func:`signature`.
    """
    _, first, inverse = np.unique(hashes.view("V16").ravel(), return_index=True, return_inverse=True)
    return first[inverse.ravel()]


def near(thumbnails: np.ndarray, distance: float) -> np.ndarray:
    """For each picture the one that is kept in its place: (n,) int64, its own number where it is kept itself.

    In order: a picture stays unless one that stays before it is within ``distance``. Thumbnails whose sums lie
    further apart are never compared, so that a search takes far less than n² / 2 comparisons.

    Args:
        thumbnails: (n, cells) uint8.
        distance: mean absolute difference in grey levels; a negative one finds nothing.
    """
    count, cells = thumbnails.shape
    stands = np.arange(count)
    if distance < 0 or not count:
        return stands
    limit = int(np.floor(distance * cells + 1e-9))  # of the sum of absolute differences
    sums = thumbnails.sum(1, dtype=np.int64)
    order = np.argsort(sums, kind="stable")
    by_sum, sorted_sums, rank = thumbnails[order].astype(np.int16), sums[order], np.argsort(order)
    low = np.searchsorted(sorted_sums, sums - limit, "left")
    high = np.searchsorted(sorted_sums, sums + limit, "right")
    kept = np.zeros(count, bool)
    for number in range(count):
        rows = low[number] + np.flatnonzero(kept[low[number] : high[number]])
        different = np.abs(by_sum[rows] - by_sum[rank[number]]).sum(1, dtype=np.int64)
        within = np.flatnonzero(different <= limit)
        if within.size:
            stands[number] = order[rows[within[different[within].argmin()]]]
        else:
            kept[rank[number]] = True
    return stands
