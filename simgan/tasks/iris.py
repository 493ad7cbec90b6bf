"""Finds the iris in an image: its annotated outline, shifted and scaled to the strongest edge.

Daugman's integro-differential operator (IEEE PAMI 1993) with the annotated outline as its contour: of all
displacements and scales, the one at which brightness increases most across the contour, outwards. Points on the sides
of the contour have larger weights, because lids hide its top and bottom.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

SMOOTHING = 0.8  # px, of the gradient
REACH = 5  # px, the search radius around the annotated position
SCALES = (0.85, 1.0, 1.15)
STEPS = (0.5, 0.25, 0.1)  # px, the step sizes of finer searches, each within two steps of the previous optimum


class IrisFit(NamedTuple):
    """Ellipse centres (N, 2) in pixels, x and y, scales against the annotated outline (N,), and edge strengths (N,) in
    grey levels per pixel.
    """

    centres: np.ndarray
    scales: np.ndarray
    strengths: np.ndarray


def fit_irises(images: np.ndarray, outlines: np.ndarray) -> IrisFit:
    """Fits pictures (N, H, W), of any dtype, with outlines (N, P, 2) in pixels.

    A result at the border of the search means that the iris has moved by REACH or more.
    """
    fits = [fit_iris(image, outline) for image, outline in zip(images, outlines, strict=True)]
    return IrisFit(*(np.array(column) for column in zip(*fits, strict=True)))


def fit_iris(image: np.ndarray, outline: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Centre (2,), scale and edge strength of one image (H, W) with its annotated outline (P, 2)."""
    centre = outline.mean(0)
    offsets = outline - centre
    normals = _normals(offsets)
    weights = normals[:, 0] ** 2
    smooth = np.asarray(image, np.float64)
    gradient = [gaussian_filter(smooth, SMOOTHING, order=order, mode="nearest") for order in ((0, 1), (1, 0))]

    def strength(moves: np.ndarray) -> np.ndarray:
        """(M, 3) of dx, dy and scale to (M,)."""
        points = centre + moves[:, None, :2] + moves[:, None, 2:] * offsets
        coordinates = points[..., 1], points[..., 0]
        slope = sum(
            map_coordinates(g, coordinates, order=1, mode="nearest") * n
            for g, n in zip(gradient, normals.T, strict=True)
        )
        return (np.maximum(slope, 0) * weights).sum(1) / weights.sum()

    axis = np.arange(-REACH, REACH + 1.0)
    best, best_strength = _best(strength, np.zeros(2), axis, np.array(SCALES))
    for step in STEPS:
        around = np.arange(-2, 3) * step
        best, best_strength = _best(strength, best[:2], around, best[2] + np.arange(-2, 3) * step / 20)
    return centre + best[:2], float(best[2]), best_strength


def _best(
    strength: Callable[[np.ndarray], np.ndarray], middle: np.ndarray, axis: np.ndarray, scales: np.ndarray
) -> tuple[np.ndarray, float]:
    dx, dy, scale = np.meshgrid(middle[0] + axis, middle[1] + axis, scales, indexing="ij")
    moves = np.stack([dx.ravel(), dy.ravel(), scale.ravel()], 1)
    values = strength(moves)
    return moves[values.argmax()], float(values.max())


def _normals(offsets: np.ndarray) -> np.ndarray:
    """Outward unit normals of a closed outline (P, 2) around the origin, from the points beside each."""
    along = np.roll(offsets, -1, 0) - np.roll(offsets, 1, 0)
    normals = np.stack([along[:, 1], -along[:, 0]], 1)
    normals *= np.sign((normals * offsets).sum(1, keepdims=True))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
