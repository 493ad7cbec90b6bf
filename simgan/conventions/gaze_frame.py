"""The frame of all gaze directions, and conversions from the frames of UnityEyes and MPIIGaze.

A direction is a unit vector: x to the image's right, y up, z towards the camera; (0, 0, 1) looks into the camera.
pitch = arcsin(y) and yaw = arctan2(x, z), in radians; so a positive pitch looks up, a positive yaw to the image's
right. All functions take (..., 3) or (..., 2) arrays and return float64.
"""

import numpy as np

CLAMP = 1 - 1e-12  # cosines of rounded unit vectors leave [-1, 1] by about 1e-16; arccos must not


def to_vector(angles: np.ndarray) -> np.ndarray:
    """(..., 2) pitch and yaw to (..., 3): (cos p · sin y, sin p, cos p · cos y)."""
    pitch, yaw = np.moveaxis(np.asarray(angles, np.float64), -1, 0)
    return np.stack([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)], -1)


def to_angles(vectors: np.ndarray) -> np.ndarray:
    """(..., 3) directions of any length to (..., 2) pitch and yaw."""
    x, y, z = np.moveaxis(unit(vectors), -1, 0)
    return np.stack([np.arcsin(np.clip(y, -1, 1)), np.arctan2(x, z)], -1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) scaled to length 1; a vector of length 0 is not changed."""
    vectors = np.asarray(vectors, np.float64)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def degrees_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The angle between directions (..., 3) and (..., 3) in degrees, (...)."""
    cosine = (unit(first) * unit(second)).sum(-1)
    return np.degrees(np.arccos(np.clip(cosine, -CLAMP, CLAMP)))


def from_unityeyes(look: np.ndarray) -> np.ndarray:
    """Unity's camera frame (x right, y up, z away from the camera) to this one; its own inverse."""
    return unit(look) * (1, 1, -1)


def from_mpiigaze(gaze: np.ndarray) -> np.ndarray:
    """MPIIGaze's normalised camera frame (x right, y down, z away from the camera) to this one; its own inverse."""
    return unit(gaze) * (1, -1, -1)


def head_of_unityeyes(pose: np.ndarray) -> np.ndarray:
    """(..., 3) Euler angles in degrees (pitch, yaw, roll), yaw 180 facing the camera, to (..., 2) pitch and yaw of the
    face. Unity turns its z axis by R_y(yaw) · R_x(pitch), a positive pitch downwards; roll leaves the axis alone."""
    pitch, yaw = np.radians(np.moveaxis(np.asarray(pose, np.float64), -1, 0)[:2])
    forward = np.stack([np.cos(pitch) * np.sin(yaw), -np.sin(pitch), np.cos(pitch) * np.cos(yaw)], -1)
    return to_angles(from_unityeyes(forward))


def head_of_mpiigaze(rotation: np.ndarray) -> np.ndarray:
    """(..., 3) rotation vectors (axis · angle in radians) to (..., 2) pitch and yaw of the face. The z axis of the face
    model points into the head, so the face looks along its opposite."""
    rotation = np.asarray(rotation, np.float64)
    angle = np.linalg.norm(rotation, axis=-1)
    x, y, z = np.moveaxis(unit(rotation), -1, 0)
    # the third column of Rodrigues' matrix: where the rotation takes (0, 0, 1)
    sine, rest = np.sin(angle), 1 - np.cos(angle)
    axis = np.stack([y * sine + x * z * rest, -x * sine + y * z * rest, np.cos(angle) + z * z * rest], -1)
    return to_angles(from_mpiigaze(-axis))


def mirrored(vectors: np.ndarray) -> np.ndarray:
    """Directions (..., 3) of an image that is flipped left to right."""
    return np.asarray(vectors, np.float64) * (-1, 1, 1)
