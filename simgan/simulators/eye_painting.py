"""Paints eyes: skin, lids, lashes, eyeball, iris, pupil and highlight, all images of a block at once.

There is no supersampling: every edge is a ramp one pixel wide, which keeps centres and outlines where the geometry puts
them. Arrays are (N, H, W) float32; coordinates are in eyeball radii, y up.
"""

from dataclasses import dataclass

import numpy as np

from simgan.simulators.eye_factors import Factors
from simgan.simulators.eye_geometry import Geometry, disc_coordinates

LID_FOLLOWS = (0.55, 0.15)  # how far the upper and the lower lid follow the gaze, in radii for sin(pitch) = 1
LID_DEPTH = 0.9  # the lids lie so far in front of the eyeball's centre, in radii
CORNEA = (0.47, 0.62)  # distance of the cornea's centre and its radius, in radii (about 5.6 mm and 7.5 mm of 12 mm)
PUPIL_TONE = 0.05
RIM = 1.2  # radius of the sphere whose normals shade the eyeball: a little larger, so that its rim is not black


@dataclass
class Painting:
    """The painted eyes, with the maps by which the camera model distinguishes skin from eyeball."""

    tone: np.ndarray  # (N, H, W), linear, about [0, 1]
    right: np.ndarray  # coordinates of the pixels, eyeball at (0, 0)
    up: np.ndarray
    opening: np.ndarray  # 1 where the eyeball is seen, 0 on skin


@dataclass
class _Lids:
    """Coordinates that move with the lids, and the heights of their edges there."""

    right: np.ndarray
    up: np.ndarray
    upper: np.ndarray
    lower: np.ndarray


def paint(factors: Factors, geometry: Geometry, height: int, width: int, *, lids: bool = True) -> Painting:
    """Paints the eyes; without ``lids`` the eyeball alone, for tests of its geometry."""
    per = {name: values[:, None, None].astype(np.float32) for name, values in factors.items()}
    radius = geometry.radius.astype(np.float32)[:, None, None]
    x = np.arange(width, dtype=np.float32)[None, None, :] - geometry.eyeball[:, 0, None, None].astype(np.float32)
    y = geometry.eyeball[:, 1, None, None].astype(np.float32) - np.arange(height, dtype=np.float32)[None, :, None]
    right, up = np.broadcast_arrays(x / radius, y / radius)
    light = np.stack([factors["light_x"], factors["light_y"], np.ones_like(factors["light_x"])], -1)
    light = (light / np.linalg.norm(light, axis=-1, keepdims=True)).astype(np.float32)
    edges = _lids(per, right, up)
    eyeball = _eyeball(per, geometry, right, up, light, radius)
    if not lids:
        return Painting(eyeball, right, up, np.ones_like(eyeball))
    below = edges.upper - edges.up  # radii below the upper lid's edge
    opening = _ramp(below * radius) * _ramp((edges.up - edges.lower) * radius)
    eyeball *= 1 - per["lid_shadow"] * np.exp(-np.square(below / 0.22))
    skin = _skin(per, edges, below, light, radius)
    return Painting(skin + (eyeball - skin) * opening, right, up, opening)


def _ramp(distance: np.ndarray) -> np.ndarray:
    """Coverage, in [0, 1], of a pixel whose centre lies ``distance`` pixels inside an edge."""
    return np.clip(distance + 0.5, 0, 1)


def _lids(per: Factors, right: np.ndarray, up: np.ndarray) -> _Lids:
    """Coordinates in the plane of the lids, which turns with the head (``eye_geometry.turn``), and the lids' curves."""
    roll = np.radians(per["roll"])
    cos, sin = np.cos(roll), np.sin(roll)
    x, y = right * cos + up * sin, up * cos - right * sin
    pitch, yaw = np.radians(per["head_pitch"]), np.radians(per["head_yaw"])
    v = (y - LID_DEPTH * np.sin(pitch)) / np.cos(pitch)
    u = (x - (LID_DEPTH * np.cos(pitch) - v * np.sin(pitch)) * np.sin(yaw)) / np.cos(yaw)
    v -= per["lid_tilt"] * u
    raised = np.sin(np.radians(per["eye_pitch"]))
    offset = np.clip(np.abs(u / per["corner"] - per["lid_skew"] * (1 - np.square(u / per["corner"]))), 0, 1)
    curve = np.power(np.maximum(1 - np.square(offset), 1e-6), per["lid_round"])
    beyond = np.maximum(np.abs(u) - per["corner"], 0)  # the edges part again beyond the corners, so nothing opens there
    upper = (per["upper_lid"] + LID_FOLLOWS[0] * raised) * curve - beyond
    lower = (LID_FOLLOWS[1] * raised - per["lower_lid"]) * curve + beyond
    return _Lids(u, v, upper, lower)


def _eyeball(
    per: Factors, geometry: Geometry, right: np.ndarray, up: np.ndarray, light: np.ndarray, radius: np.ndarray
) -> np.ndarray:
    """Sclera, iris, pupil and the light's reflection on the cornea."""
    # The normal's x and y; conjunctiva fills the corners, so what is beyond the sphere is shaded like its rim.
    nx, ny = right * (1 / RIM), up * (1 / RIM)
    facing = np.sqrt(np.maximum(1 - np.square(nx) - np.square(ny), 0.04))
    lit = np.maximum(nx * _axis(light, 0) + ny * _axis(light, 1) + facing * _axis(light, 2), 0)
    shade = per["ambient"] + (1 - per["ambient"]) * lit
    tone = per["sclera"] * shade * (0.6 + 0.4 * facing)
    gaze = geometry.gaze.astype(np.float32)
    centre = (geometry.pupil - geometry.eyeball).astype(np.float32)
    across, upward = disc_coordinates(right - _axis(centre, 0) / radius, up + _axis(centre, 1) / radius, gaze)
    share = np.sqrt(np.square(across) + np.square(upward)) / per["iris_radius"]  # 1 at the iris' edge
    pixels = radius * per["iris_radius"]
    iris = per["iris"] * shade * (1 + _fibres(per, across, upward, share))
    iris *= 1 - per["limbus"] * np.clip((share - 0.65) / 0.35, 0, 1) ** 2
    tone += (iris - tone) * _ramp((1 - share) * pixels)
    tone += (PUPIL_TONE - tone) * _ramp((per["pupil_radius"] - share) * pixels)
    return tone + (1 - tone) * per["highlight"] * _reflection(per, gaze, light, right, up)


def _axis(vectors: np.ndarray, axis: int) -> np.ndarray:
    return vectors[:, axis, None, None]


def _fibres(per: Factors, across: np.ndarray, upward: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A relative brightness: fibres that run outwards, and a lighter ring around the pupil."""
    angle = np.arctan2(upward, across)
    phase = 40 * per["iris"] + 90 * per["iris_texture"]  # differs from eye to eye
    fibres = np.cos(7 * angle + phase + 5 * share) + np.cos(12 * angle - 2 * phase - 3 * share)
    ring = np.exp(-np.square((share - per["pupil_radius"] - 0.18) / 0.12))
    return per["iris_texture"] * (fibres * share + 1.5 * ring)


def _reflection(per: Factors, gaze: np.ndarray, light: np.ndarray, right: np.ndarray, up: np.ndarray) -> np.ndarray:
    """A soft spot where the cornea's normal halves the angle between the light and the camera."""
    half = light + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    spot = CORNEA[0] * gaze + CORNEA[1] * half
    distance = np.square(right - _axis(spot, 0)) + np.square(up - _axis(spot, 1))
    return np.exp(-distance / np.square(per["highlight_size"]))


def _skin(per: Factors, lids: _Lids, below: np.ndarray, light: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Skin over the bulge of the eyeball, with the lid's crease, the brow's shadow, the lids' rims and the lashes."""
    bulge_x, bulge_y = 0.5 * np.clip(lids.right, -1.2, 1.2), 0.6 * np.clip(lids.up, -1, 1)
    lit = bulge_x * _axis(light, 0) + bulge_y * _axis(light, 1) + _axis(light, 2)
    lit = np.maximum(lit / np.sqrt(1 + np.square(bulge_x) + np.square(bulge_y)), 0)
    tone = per["skin"] * (per["ambient"] + (1 - per["ambient"]) * lit)
    along = np.clip(1.3 - np.square(lids.right / per["corner"]), 0, 1)  # folds and rims end at the corners
    tone *= 1 - per["crease"] * along * np.exp(-np.square((below + per["crease_gap"]) / 0.05))
    tone *= 1 - per["nose"] * np.clip((lids.right - 1.0) * 1.2, 0, 1)
    tone *= 1 - per["brow"] * np.clip(lids.up - 0.55, 0, 0.6) / 0.6
    under = lids.lower - lids.up
    rims = 0.08 * np.exp(-np.square((under - 0.06) / 0.05)) - 0.12 * np.exp(-np.square((under - 0.35) / 0.12))
    tone *= 1 + along * rims
    return tone * (1 - per["lashes"] * _lashes(per, lids, below, radius))


def _lashes(per: Factors, lids: _Lids, below: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Darkness of the lashes: a line along the upper edge, teeth above it that lean outwards, a faint lower line."""
    above = np.maximum(-below, 0)
    lean = lids.right * (1 - 0.6 * above)
    teeth = 0.6 + 0.4 * np.cos(lean * per["lash_count"] * (np.pi / per["corner"]))
    between = np.clip((per["corner"] + 0.05 - np.abs(lids.right)) * 5, 0, 1)
    upper = np.exp(-above / per["lash_length"]) * teeth
    under = np.exp(-np.square((lids.lower - lids.up) / 0.04)) * 0.4
    return np.minimum(np.where(below < 0.5 / radius, upper, under), 1) * between
