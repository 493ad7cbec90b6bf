"""Where an eye's parts lie in the image: a spherical eyeball with a flat iris disc, in parallel projection.

Frames: x to the image's right, y up, z towards the camera. The iris is a disc perpendicular to the gaze, its edge on
the sphere of radius R: with iris radius r its centre lies sqrt(R² - r²) from the eyeball's centre, so a gaze that is
an angle a off the camera's axis displaces it by sqrt(R² - r²) sin a and shortens it by cos a along the displacement.
"""

from dataclasses import dataclass

import numpy as np

from simgan.simulators.eye_factors import Factors

OUTLINE = 32  # points of the iris outline
ANGLES = ("eye_pitch", "eye_yaw", "head_pitch", "head_yaw", "roll")


@dataclass
class Geometry:
    """Per image; lengths in pixels. ``gaze`` is (N, 3), points are (N, 2) as (x right, y down), the rest (N,)."""

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
    """Rotates vectors (N, 3) from the head's frame to the camera's: the head's pitch, then its yaw, then the roll.

    A head of pitch p and yaw y faces ``direction(p, y)`` before the roll. A positive roll turns the image
    anticlockwise.
    """
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    y, z = y * np.cos(pitch) + z * np.sin(pitch), z * np.cos(pitch) - y * np.sin(pitch)
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    x, y = x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)
    return np.stack([x, y, z], -1)


def locate(factors: Factors, height: int, width: int) -> Geometry:
    """The geometry of images (height, width), in float64."""
    eye_pitch, eye_yaw, *pose = (np.radians(factors[name].astype(np.float64)) for name in ANGLES)
    gaze = turn(direction(eye_pitch, eye_yaw), *pose)
    forward = turn(np.broadcast_to([0.0, 0.0, 1.0], gaze.shape), *pose)
    radius = factors["scale"].astype(np.float64) * width
    iris = factors["iris_radius"] * radius
    shift = np.stack([factors["shift_x"], factors["shift_y"]], -1).astype(np.float64) * width
    eyeball = np.array([(width - 1) / 2, (height - 1) / 2]) + shift
    depth = np.sqrt(radius**2 - iris**2)
    pupil = eyeball + depth[:, None] * gaze[:, :2] * [1, -1]
    head = np.stack([np.arcsin(forward[:, 1]), np.arctan2(forward[:, 0], forward[:, 2])], -1)
    return Geometry(gaze, head, eyeball, pupil, radius, iris)


def iris_outline(geometry: Geometry) -> np.ndarray:
    """(N, 32, 2): points of the projected iris edge, in pixels (x right, y down), whether lids cover them or not."""
    angle = np.arange(OUTLINE) * (2 * np.pi / OUTLINE)
    circle = geometry.iris[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    flat, towards = geometry.gaze[:, None, :2], geometry.gaze[:, None, 2:]
    along = (circle * flat).sum(-1, keepdims=True)
    return geometry.pupil[:, None] + (circle - flat * along / (1 + towards)) * [1, -1]


def disc_coordinates(right: np.ndarray, up: np.ndarray, gaze: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of the outline's projection: from the iris centre in the image to coordinates in the iris' plane.

    Args:
        right, up: (N, H, W) from the iris centre, any unit.
        gaze: (N, 3).
    """
    x, y, z = (gaze[:, axis, None, None] for axis in range(3))
    along = (right * x + up * y) / (z * (1 + z))
    return right + x * along, up + y * along
