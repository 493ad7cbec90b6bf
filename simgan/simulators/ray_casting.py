"""Renders depth images of balls, tapered bones and ellipsoids: closed-form intersections, of which the nearest counts.

A pinhole camera at the origin looks along z, x to the right and y down. Pixel (x, y) of an image sees along
(((x - c) / f + u), ((y - c) / f + v), 1). A ray is followed from where it crosses the plane of the image's
centre, because float32 is exact enough there. One solid is intersected in all images at once, in windows around it;
arithmetic is elementwise, so an image does not depend on the others.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class View:
    """N square images, each a crop of a camera's image around a centre, rescaled."""

    centres: np.ndarray  # (N, 3) mm, the points in the middle of the images
    side: float  # mm, the length of the image's side at the centre's depth
    size: int  # pixels

    @property
    def focal(self) -> np.ndarray:
        """Focal lengths (N,) in pixels of the crops."""
        return self.size * self.centres[:, 2] / self.side

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (N, K, 3) in mm as (x, y) in pixels and z in mm relative to the centre; (N, K, 3)."""
        centre = self.centres[:, None]
        slopes = points[..., :2] / points[..., 2:] - centre[..., :2] / centre[..., 2:]
        pixels = slopes * self.focal[:, None, None] + (self.size - 1) / 2
        return np.concatenate([pixels, points[..., 2:] - centre[..., 2:]], -1)

    def bounds(self, points: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pixels from (inclusive) and to (exclusive) which balls (N, K, 3) of radii (N, K) may be seen, clipped to
        the image: two int64 (N, K, 2), x before y."""
        across, depth = points[..., :2], points[..., 2:]
        radii = radii[..., None]
        reach = radii * np.sqrt(across**2 + depth**2 - radii**2)  # of the tangent planes that hold the other axis
        slopes = np.stack([across * depth - reach, across * depth + reach]) / (depth**2 - radii**2)
        centre = self.centres[:, None]
        pixels = (slopes - centre[..., :2] / centre[..., 2:]) * self.focal[:, None, None] + (self.size - 1) / 2
        low, high = np.clip(pixels, -1, self.size)
        return np.ceil(low).clip(0).astype(np.int64), np.floor(high).clip(max=self.size - 1).astype(np.int64) + 1


class Windows:
    """The rays of a window in each of N images, all equally large and as small as they can be from ``low`` (N, 2) to
    ``high`` (N, 2). Parts along x are (N, 1, w), along y (N, h, 1), along z (N, 1, 1)."""

    def __init__(self, view: View, low: np.ndarray, high: np.ndarray) -> None:
        width, height = (high - low).max(0).clip(0)
        left, top = np.minimum(low, view.size - np.array([width, height])).T
        self.columns = (left[:, None] + np.arange(width))[:, None, :]
        self.rows = (top[:, None] + np.arange(height))[:, :, None]
        focal, self._depth = view.focal[:, None, None], view.centres[:, 2, None, None]
        self._slopes = [
            (places - (view.size - 1) / 2) / focal + view.centres[:, axis, None, None] / self._depth
            for axis, places in enumerate((self.columns, self.rows))
        ]
        x, y = (slope.astype(np.float32) for slope in self._slopes)
        self.direction = x, y, np.ones((1, 1, 1), np.float32)
        self.squared = _dot(self.direction, self.direction)  # |d|²

    def starts_from(self, point: np.ndarray) -> tuple[np.ndarray, ...]:
        """The starting points of rays relative to ``point`` (N, 3); subtracted in float64."""
        starts = [slope * self._depth for slope in self._slopes] + [self._depth]
        return tuple((start - point[:, axis, None, None]).astype(np.float32) for axis, start in enumerate(starts))


def render(
    view: View, points: np.ndarray, radii: np.ndarray, bones: tuple[tuple[int, int], ...], axes: np.ndarray
) -> np.ndarray:
    """Depth of the nearest surface relative to the centre's.

    Args:
        points: (N, K + 1, 3) mm, the balls' centres and last that of the ellipsoid.
        radii: (N, K) mm; a ball of radius 0 and its bones are not rendered.
        bones: pairs of balls, between which the radius is interpolated linearly.
        axes: (N, 3, 3) mm, a row for each semi-axis of the ellipsoid.

    Returns:
        (N, size, size) float32 mm, infinity for the background.
    """
    depth = np.full((len(points), view.size, view.size), np.inf, np.float32)
    balls = points[:, :-1]
    low, high = view.bounds(balls, radii)
    with np.errstate(invalid="ignore", divide="ignore"):  # rays that miss
        for ball in range(radii.shape[1]):
            window = Windows(view, low[:, ball], high[:, ball])
            _keep_nearer(depth, window, meet_ball(window, balls[:, ball], radii[:, ball]))
        for pair in map(list, bones):
            window = Windows(view, low[:, pair].min(1), high[:, pair].max(1))
            _keep_nearer(depth, window, meet_bone(window, balls[:, pair], radii[:, pair]))
        reach = np.sqrt((axes**2).sum(-1)).max(1, keepdims=True)
        window = Windows(view, *(bound[:, 0] for bound in view.bounds(points[:, -1:], reach)))
        _keep_nearer(depth, window, meet_ellipsoid(window, points[:, -1], axes))
    return depth


def _keep_nearer(depth: np.ndarray, window: "Windows", met: np.ndarray) -> None:
    """Lowers ``depth`` to ``met`` inside the window; NaN is a miss."""
    pixels = (np.arange(len(depth))[:, None, None] * depth.shape[1] + window.rows) * depth.shape[2] + window.columns
    flat = depth.reshape(-1)  # a view
    flat[pixels] = np.fmin(flat[pixels], met)


def _dot(first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...]) -> np.ndarray:
    """Sum over the axes, where x parts are (N, 1, w) and y parts (N, h, 1)."""
    return (first[0] * second[0] + first[2] * second[2]) + first[1] * second[1]


def _column(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[:, None, None]


def meet_ball(window: Windows, centre: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Where rays enter balls, (N, h, w): the smaller root of |m + t d|² = r²; NaN for a miss and for radius 0."""
    start = window.starts_from(centre)
    half = _dot(start, window.direction)
    inside = half * half - window.squared * (_dot(start, start) - _column(radius) ** 2)
    return np.where(_column(radius) > 0, (-half - np.sqrt(inside)) / window.squared, np.nan)


def meet_bone(window: Windows, ends: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Where rays enter the cones that touch both balls of a bone, ends (N, 2, 3) and radii (N, 2); NaN for a miss.

    The bone is the union of balls at a + s e of radius r + s g, 0 ≤ s ≤ 1. A point p, seen from a, is on the surface
    between the end balls where (p·e + r g)² = (e·e - g²) (p·p - r²), and s = (p·e + r g) / (e·e - g²). With
    p = m + t d this is k2 t² + 2 k1 t + k0 = 0, solved in the form that survives k2 = 0.
    """
    edge = ends[:, 1] - ends[:, 0]
    radius, growth = _column(radii[:, 0]), _column(radii[:, 1] - radii[:, 0])
    e = tuple(edge[:, axis, None, None].astype(np.float32) for axis in range(3))
    shrink = _dot(e, e) - growth * growth
    start = window.starts_from(ends[:, 0])
    forward, offset = _dot(window.direction, e), _dot(start, e) + radius * growth
    k2 = forward * forward - shrink * window.squared
    k1 = offset * forward - shrink * _dot(start, window.direction)
    k0 = offset * offset - shrink * (_dot(start, start) - radius * radius)
    t = -k0 / (k1 + np.sqrt(k1 * k1 - k2 * k0))
    s = offset + t * forward
    return np.where((s >= 0) & (s <= shrink) & np.all(radii > 0, axis=1)[:, None, None], t, np.nan)


def meet_ellipsoid(window: Windows, centre: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Where rays enter ellipsoids with semi-axes (N, 3, 3), a row each; NaN for a miss."""
    start = window.starts_from(centre)
    squared = half = constant = np.float32(0)
    for unit in np.moveaxis(axes / (axes**2).sum(-1, keepdims=True), 1, 0):  # p·unit = 1 on the surface's tip
        u = tuple(unit[:, axis, None, None].astype(np.float32) for axis in range(3))
        d, m = _dot(window.direction, u), _dot(start, u)
        squared, half, constant = squared + d * d, half + d * m, constant + m * m
    return (-half - np.sqrt(half * half - squared * (constant - 1))) / squared
