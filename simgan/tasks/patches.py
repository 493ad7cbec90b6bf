"""Measures by patch matching how far the surroundings of marked points have moved between two images.

The shift is the one, of all shifts by whole pixels up to REACH of the side, at which the patch of the first image
differs least from the second. A point counts only if its patch has structure along both axes (the smaller eigenvalue of
its gradients' second moments, Shi and Tomasi 1994): the movement of a fingertip can be detected, that of the middle of
a palm cannot.
"""

from typing import NamedTuple

import numpy as np

PATCH = 0.14  # side of a patch, as a share of the image's: at 300 mm about as wide as two fingers
REACH = 0.07  # of the side
CLIP = 48.0  # grey levels: differences count up to this, so that holes and specks do not outweigh the rest
STRUCTURE = 90.0  # grey levels: from this contrast on along both axes a point counts
KEPT = 0.5  # of its own contrast: if the matched patch has less, the point is lost
TIE = 0.02  # grey levels per pixel of shift: of equally good shifts the smallest is taken


class Shifts(NamedTuple):
    """The result for N images with P points."""

    moves: np.ndarray  # (N, P, 2) pixels, x and y
    counted: np.ndarray  # (N, P) bool: the patch lies in the image and shows whether it moves
    lost: np.ndarray  # (N, P) bool: counted, but the matched patch is blank or blurred


def reach(size: int) -> int:
    """The search radius along either axis, in pixels of an image of ``size``."""
    return max(4, round(REACH * size))


def patch_shifts(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> Shifts:
    """Images (N, S, S) of any dtype, in grey levels, and points (N, P, 2) in pixels, x and y."""
    size = before.shape[-1]
    half, far = max(2, round(PATCH * size / 2)), reach(size)
    margin = half + far
    padded = [np.pad(part.astype(np.float32), ((0, 0), (margin, margin), (margin, margin))) for part in (before, after)]
    middle = np.rint(points).astype(int)
    inside = ((middle >= 0) & (middle < size)).all(-1)
    x, y = np.moveaxis(middle.clip(0, size - 1) + margin, -1, 0)
    offset = np.arange(-half, half + 1)

    def cut(picture: np.ndarray, dx: np.ndarray | int, dy: np.ndarray | int) -> np.ndarray:
        """The patches (N, P, h, w) around the points, moved by (dx, dy)."""
        rows, columns = ((along + move)[..., None] + offset for along, move in ((y, dy), (x, dx)))
        return picture[np.arange(len(picture))[:, None, None, None], rows[..., :, None], columns[..., None, :]]

    patch = cut(padded[0], 0, 0)
    shifts = [(dx, dy) for dy in range(-far, far + 1) for dx in range(-far, far + 1)]
    costs = [_difference(patch, cut(padded[1], dx, dy), float(np.hypot(dx, dy))) for dx, dy in shifts]
    moves = np.array(shifts)[np.stack(costs, -1).argmin(-1)]
    contrast_before, contrast_after = _structure(patch), _structure(cut(padded[1], moves[..., 0], moves[..., 1]))
    counted = inside & (contrast_before > STRUCTURE)
    return Shifts(moves, counted, counted & (contrast_after < KEPT * contrast_before))


def _difference(first: np.ndarray, second: np.ndarray, distance: float) -> np.ndarray:
    """Mean clipped difference of patches (N, P, h, w), plus a small term for the distance."""
    return np.minimum(np.abs(first - second), CLIP).mean((-2, -1)) + TIE * distance


def _structure(patch: np.ndarray) -> np.ndarray:
    """Contrast along the axis that has less of it, (N, P) grey levels.

    A straight edge of height h through the patch has a contrast of about h along the axis that crosses it and 0 along
    the other, whatever the size of the image.
    """
    dy, dx = np.gradient(patch, axis=(-2, -1))
    xx, yy, xy = ((a * b).mean((-2, -1)) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    smaller = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    return np.sqrt(2 * patch.shape[-1] * np.maximum(smaller, 0))  # an edge spreads over two pixels of gradient h / 2
