"""The noise model of a structured-light depth camera (Kinect v1), applied to clean depth images.

Numbers are from memory: the axial noise of Nguyen et al. 2012, 1.2 mm + 1.9 mm/m² (z - 0.4 m)²; a baseline of 75 mm;
disparities in eighths of a pixel. The rates of flying pixels and of losses at grazing angles are set by eye.
"""

from dataclasses import dataclass, fields

import numpy as np

BASELINE = 75.0  # mm from the camera to the projector, which stands to its right
SENSOR_FOCAL = 588.235  # pixels of the 640 × 480 image that disparity is measured in
DISPARITY_STEPS = 8  # per pixel
EDGE = 20.0  # mm between neighbours that are not one surface
WALL = 700.0  # mm behind the hand's centre, the background that flying pixels are mixed with
GRAZING = 2.5  # slope (68°) above which a surface is lost, where the random field is zero
FIELD = 10  # knots per side of a smooth random field


@dataclass(frozen=True)
class Noise:
    """The random draws for N images, float32."""

    shift: np.ndarray  # (N, 2, size, size) normal: offset of the pixel that is read, x and y
    axial: np.ndarray  # (N, size, size) normal
    flying: np.ndarray  # (N, 2, size, size) uniform: whether an edge pixel is a flying pixel, and its depth
    knots: np.ndarray  # (N, 3, FIELD, FIELD) normal: of grazing, holes, and depth


def draw_noise(random: np.random.Generator, size: int) -> Noise:
    """The draws for one image, N = 1."""
    normal = random.standard_normal((1, 3, size, size), np.float32)
    uniform = random.random((1, 2, size, size), np.float32)
    knots = random.standard_normal((1, 3, FIELD, FIELD), np.float32)
    return Noise(normal[:, :2], normal[:, 2], uniform, knots)


def together(noise: list[Noise]) -> Noise:
    """Joins the draws of several images."""
    return Noise(*(np.concatenate([getattr(one, part.name) for one in noise]) for part in fields(Noise)))


def sense(depth: np.ndarray, centre: np.ndarray, focal: np.ndarray, noise: Noise) -> np.ndarray:
    """A clean image as the camera sees it.

    Args:
        depth: (N, size, size) float32 mm behind the centre, infinity where nothing is.
        centre: (N,) mm from the camera.
        focal: (N,) pixels.

    Returns:
        (N, size, size) float32 mm behind the centre, infinity where nothing is or nothing was measured.
    """
    size = depth.shape[-1]
    grazing, spots, waves = np.moveaxis(smooth(noise.knots, size), 1, 0)
    lost = shadow(depth, centre, focal) | (slope(depth, centre, focal) > GRAZING * np.exp2(0.7 * grazing))
    lost |= spots > 2.3
    seen = np.where(lost, np.float32(np.inf), depth)
    blur = min(1.0, size / 224)  # pixels; edges are ragged by about a millimetre, however small the image
    seen = ragged(seen, noise.shift * np.float32(blur), noise.flying)
    away = centre[:, None, None].astype(np.float32) + seen
    metres = np.where(np.isfinite(seen), away, 0) / 1000
    deviation = 1.2 + 1.9 * (metres - 0.4) ** 2
    return quantise(away + deviation * (0.8 * noise.axial + 0.6 * waves)) - centre[:, None, None].astype(np.float32)


def smooth(knots: np.ndarray, size: int) -> np.ndarray:
    """Random knots (N, K, FIELD, FIELD), bilinearly interpolated to smooth fields (N, K, size, size)."""
    knot_position = np.linspace(0, FIELD - 1, size)
    weights = np.maximum(0, 1 - np.abs(knot_position[:, None] - np.arange(FIELD))).astype(np.float32)
    return weights @ knots @ weights.T


def shadow(depth: np.ndarray, centre: np.ndarray, focal: np.ndarray) -> np.ndarray:
    """Which pixels the projector does not reach, bool.

    Seen from the projector, x is less by the disparity f·b/z; a pixel lies in the shadow if a pixel to its right in the
    camera's image is to its left there.
    """
    disparity = (focal * BASELINE)[:, None, None] / (centre[:, None, None] + depth)
    projector_x = np.arange(depth.shape[-1]) - disparity
    nearest = np.minimum.accumulate(projector_x[..., ::-1], -1)[..., ::-1]
    return projector_x > nearest + 0.5


def slope(depth: np.ndarray, centre: np.ndarray, focal: np.ndarray) -> np.ndarray:
    """Steepness of the surface in mm per mm: along either axis the smaller of the steps to the two neighbours, so that
    an edge is not steep by itself. NaN where it is undefined."""
    steps = []
    with np.errstate(invalid="ignore"):
        for axis in (-1, -2):
            step = np.abs(np.diff(depth, axis=axis, prepend=np.inf, append=np.inf))
            length = depth.shape[axis]
            before, after = (np.take(step, np.arange(start, start + length), axis) for start in (0, 1))
            steps.append(np.fmin(before, after))
        return np.hypot(*steps) / (centre / focal)[:, None, None]


def ragged(depth: np.ndarray, shift: np.ndarray, flying: np.ndarray) -> np.ndarray:
    """Ragged edges: every pixel reads the depth at an offset, and some at edges become flying pixels between surfaces.

    Args:
        shift: (N, 2, size, size) offsets in pixels.
        flying: (N, 2, size, size) uniform numbers: small first ones make flying pixels, second ones decide their depth.
    """
    count, size, _ = depth.shape
    here = np.indices((size, size))
    x, y = (np.rint(here[1 - axis] + shift[:, axis]).astype(int).clip(0, size - 1) for axis in (0, 1))
    shifted = depth[np.arange(count)[:, None, None], y, x]
    wall = np.float32(WALL)
    front, back = np.where(np.isfinite(depth), depth, wall), np.where(np.isfinite(shifted), shifted, wall)
    between = front + (back - front) * flying[:, 1] ** 2
    flies = (np.abs(back - front) > EDGE) & (flying[:, 0] < 0.3)
    return np.where(flies, between, shifted)


def quantise(depth: np.ndarray) -> np.ndarray:
    """Rounds depths in mm from the camera to whole eighths of a pixel of disparity."""
    scale = SENSOR_FOCAL * BASELINE * DISPARITY_STEPS
    with np.errstate(divide="ignore"):
        return (scale / np.rint(scale / depth)).astype(np.float32)
