"""Where an eye's parts lie in the picture: a spherical eyeball with a flat iris disc, projected in parallel.

Frames: x to the image's right, y up, z towards the camera. The iris is a disc perpendicular to the gaze, its edge on
the sphere of radius R: with iris radius r its centre lies sqrt(R² - r²) from the eyeball's centre, so a gaze that is
an angle a off the camera's axis displaces it by sqrt(R² - r²) sin a and squeezes it by cos a along the displacement.
"""

from dataclasses import dataclass

import numpy as np

from simgan.simulators.eye_factors import Factors

OUTLINE = 32  # points of the iris outline


@dataclass
class Geometry:
    """Per picture; lengths in pixels. ``gaze`` is (N, 3), points are (N, 2) as (x right, y down), the rest (N,)."""

    gaze: np.ndarray  # unit vectors in the camera's frame
    head: np.ndarray  # (N, 2) pitch and yaw in radians in the camera's frame
    eyeball: np.ndarray  # centre
    pupil: np.ndarray  # centre of the iris and of the pupil
    radius: np.ndarray  # of the eyeball
    iris: np.ndarray  # radius of the iris


def direction(pitch: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 3) of pitch and yaw in radians: (cos p sin y, sin p, cos p cos y)."""
    return np.stack([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)], -1)


def turn(vectors: np.ndarray, pitch: np.ndarray, yaw: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Vectors (N, 3) of the head's frame in the camera's: the head pitches, then yaws; the camera is rolled.

    A head of pitch p and yaw y faces ``direction(p, y)`` before the roll. A positive roll turns the picture
    anticlockwise.
    """
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    y, z = y * np.cos(pitch) + z * np.sin(pitch), z * np.cos(pitch) - y * np.sin(pitch)
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    x, y = x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)
    return np.stack([x, y, z], -1)


def locate(factors: Factors, height: int, width: int) -> Geometry:
    """The geometry of pictures (height, width), in float64."""
    angle = {name: np.radians(factors[name].astype(np.float64)) for name in factors if name in _ANGLES}
    roll, pose = angle["roll"], (angle["head_pitch"], angle["head_yaw"], angle["roll"])
    gaze = turn(direction(angle["eye_pitch"], angle["eye_yaw"]), *pose)
    forward = turn(np.broadcast_to([0.0, 0.0, 1.0], gaze.shape), *pose)
    radius = factors["scale"].astype(np.float64) * width
    iris = factors["iris_radius"] * radius
    shift = np.stack([factors["shift_x"], factors["shift_y"]], -1).astype(np.float64) * width
    eyeball = np.array([(width - 1) / 2, (height - 1) / 2]) + shift
    depth = np.sqrt(radius**2 - iris**2)
    pupil = eyeball + depth[:, None] * gaze[:, :2] * [1, -1]
    head = np.stack([np.arcsin(forward[:, 1]), np.arctan2(forward[:, 0], forward[:, 2])], -1)
    assert len(roll) == len(gaze)
    return Geometry(gaze, head, eyeball, pupil, radius, iris)


_ANGLES = ("eye_pitch", "eye_yaw", "head_pitch", "head_yaw", "roll")


def iris_outline(geometry: Geometry) -> np.ndarray:
    """(N, 32, 2): points of the projected iris edge, in pixels (x right, y down), whether lids cover them or not."""
    angle = np.arange(OUTLINE) * (2 * np.pi / OUTLINE)
    circle = geometry.iris[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    flat, towards = geometry.gaze[:, None, :2], geometry.gaze[:, None, 2:]
    along = (circle * flat).sum(-1, keepdims=True)
    return geometry.pupil[:, None] + (circle - flat * along / (1 + towards)) * [1, -1]


def disc_coordinates(right: np.ndarray, up: np.ndarray, gaze: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of the outline's projection: from the iris centre in the picture to coordinates in the iris' plane.

    Args:
        right, up: (N, H, W) from the iris centre, any unit.
        gaze: (N, 3).
    """
    x, y, z = (gaze[:, axis, None, None] for axis in range(3))
    along = (right * x + up * y) / (z * (1 + z))
    return right + x * along, up + y * along
