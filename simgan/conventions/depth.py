"""Depth images of hands as 8-bit grey: nearest white, background black, relative to the hand's centre."""

import numpy as np

HALF_RANGE = 150.0  # mm before and behind the centre, and to either side of it in the image
LEVELS = 254  # grey 1 to 255; 0 is the background


def to_grey(depth: np.ndarray) -> np.ndarray:
    """Depth in mm behind the centre, infinity or NaN for nothing, as uint8 of the same shape.

    Grey is 255 at -150 mm and nearer, 1 at +150 mm, 0 behind that and where nothing is.
    """
    with np.errstate(invalid="ignore"):
        grey = 1 + (LEVELS / (2 * HALF_RANGE)) * (HALF_RANGE - depth)
        return np.where(depth <= HALF_RANGE, np.rint(grey).clip(1, 255), 0).astype(np.uint8)


def to_depth(grey: np.ndarray) -> np.ndarray:
    """The inverse of :func:`to_grey`, to half a level (0.6 mm): float32 mm, infinity for the background."""
    depth = HALF_RANGE - (grey.astype(np.float32) - 1) * np.float32(2 * HALF_RANGE / LEVELS)
    return np.where(grey > 0, depth, np.float32(np.inf))
