"""The power spectrum of images, and its radial average (Durall et al. 2020, arXiv 2003.01826).

The radial average is the mean over all directions at each frequency.
"""

import numpy as np

CHUNK = 64  # images transformed at once
SMALLEST_MAP = 4  # px: the maps that generators start from
RED_GREEN_BLUE = np.array([0.299, 0.587, 0.114])  # luma of Rec. 601


def power_spectrum(images: np.ndarray) -> np.ndarray:
    """Mean power |F|² / (H W) over images uint8 (N, C, H, W), float64 (H, W), frequency 0 at [0, 0].

    Of the luminance in [-1, 1]. Its sum is that of the squared luminance (Parseval); white noise of variance v is flat
    at v.
    """
    count, channels, height, width = images.shape
    weights = RED_GREEN_BLUE if channels == 3 else np.ones(1)
    total = np.zeros((height, width))
    for start in range(0, count, CHUNK):
        luminance = np.einsum("nchw,c->nhw", images[start : start + CHUNK] / 127.5 - 1, weights)
        total += (np.abs(np.fft.fft2(luminance)) ** 2).sum(0)
    return total / (count * height * width)


def azimuthal_average(power: np.ndarray) -> np.ndarray:
    """The mean of a spectrum (S, S) on rings: entry r is that of all frequencies at r - 1/2 to r + 1/2 cycles.

    The last ring is the corner's, S/√2 rounded down (as Durall et al. 2020, with the mean for the integral).
    """
    size = len(power)
    cycles = np.fft.fftfreq(size, 1 / size)
    ring = np.floor(np.hypot(cycles[:, None], cycles) + 0.5).astype(np.int64)
    sums = np.bincount(ring.ravel(), power.ravel())
    return (sums / np.bincount(ring.ravel()))[: int(size / np.sqrt(2)) + 1]


def artefact_frequencies(size: int) -> list[int]:
    """Cycles per image at which up-sampling by two repeats the spectrum: the sizes of the maps, ascending."""
    maps = [size // 2]
    while maps[0] // 2 >= SMALLEST_MAP:
        maps.insert(0, maps[0] // 2)
    return maps
