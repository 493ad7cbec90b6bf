"""A kinematic hand: a palm and five fingers of three bones, as balls at its joints, tapered bones between them, and
an ellipsoid for the palm.

Hand frame, in mm: the wrist is the origin, x points to the thumb's side, y along the middle finger, z out of the palm.
Lengths and ranges of motion are rounded textbook values of an adult right hand, written from memory.
"""

from dataclasses import dataclass

import numpy as np

Range = tuple[float, float]

FINGERS = ("index", "middle", "ring", "little")
BASES = np.array([[14, 16, 0], [5, 16, 1], [-6, 15, 1], [-14, 14, 0]], float)  # of the metacarpals, at the wrist
KNUCKLES = np.array([[26, 88, 0], [5, 91, 3], [-15, 85, 2], [-33, 75, -1]], float)
PHALANGES = np.array([[43, 25, 19], [47, 29, 20], [43, 28, 20], [34, 20, 18]], float)
FINGER_RADII = np.array([[12, 11.5, 9.3, 8, 7], [12, 11.5, 9.5, 8, 7], [12, 11, 9, 7.6, 6.8], [11, 10, 8, 6.8, 6]])
FAN = np.radians([7.0, 1.0, -5.0, -13.0])  # directions of the resting fingers in the palm's plane
APART = np.array([1.0, 0.2, -0.5, -1.0])  # abductions of fingers that are spread, as shares of the range
THUMB_BASE = np.array([21.0, 24.0, 7.0])
THUMB_BONES = np.array([44.0, 33.0, 25.0])
THUMB_RADII = np.array([15.0, 12.0, 10.0, 8.5])
WRIST = np.array([[12, 2, -1], [-12, 2, -1]], float)  # thumb's side, other side
WRIST_RADIUS, FOREARM_RADIUS = 17.0, 21.0
PALM_CENTRE = np.array([-3.0, 52.0, 1.0])
PALM_AXES = np.array([34.0, 44.0, 15.0])  # semi-axes

# Ranges of motion in degrees: flexion bends towards the palm, abduction towards the thumb's side.
KNUCKLE_FLEXION: Range = (-15.0, 85.0)
MIDDLE_FLEXION: Range = (0.0, 105.0)  # of the second joint; the last one follows with two thirds of its angle
ABDUCTION: Range = (-14.0, 14.0)  # of a stretched finger; a bent one has less
THUMB_OPPOSITION: Range = (0.0, 60.0)  # out of the palm's plane
THUMB_FLEXION: tuple[Range, ...] = ((-10.0, 35.0), (0.0, 45.0), (-5.0, 70.0))  # of its three joints

# Balls: four of base, knuckle, second joint, last joint, tip; thumb's base, knuckle, joint, tip; wrist; forearm.
THUMB, FOREARM = 5 * len(FINGERS), 5 * len(FINGERS) + 4
BALLS = FOREARM + 4
PALM = BALLS  # the point after the balls
BONES = (
    *((5 * finger + part, 5 * finger + part + 1) for finger in range(len(FINGERS)) for part in range(4)),
    *((THUMB + part, THUMB + part + 1) for part in range(3)),
    *((FOREARM, FOREARM + 2), (FOREARM + 1, FOREARM + 3), (FOREARM, FOREARM + 1), (FOREARM + 2, FOREARM + 3)),
    (THUMB, 1),  # the flesh between thumb and index finger
)
DIGIT_ENDS = (*((5 * finger + 3, 5 * finger + 4) for finger in range(len(FINGERS))), (THUMB + 2, THUMB + 3))

# The 14 joints that are evaluated on NYU (Tompson 2014; the choice from memory), little finger to thumb.
JOINT_NAMES = (
    *(f"{finger} {joint}" for finger in reversed(FINGERS) for joint in ("tip", "second joint")),
    *("thumb tip", "thumb joint", "thumb knuckle", "wrist, thumb's side", "wrist, other side", "palm"),
)
JOINTS = np.array(
    [
        *(5 * finger + part for finger in reversed(range(len(FINGERS))) for part in (4, 2)),
        *(THUMB + 3, THUMB + 2, THUMB + 1, FOREARM, FOREARM + 1, PALM),
    ]
)


@dataclass(frozen=True)
class Shape:
    """Proportions of N hands: lengths and thicknesses as multiples of the mean ones."""

    scale: np.ndarray  # (N,) of the whole hand
    digits: np.ndarray  # (N, 5) of the bones of each digit, index to little, thumb
    girth: np.ndarray  # (N,) of radii and of the palm's thickness
    forearm: np.ndarray  # (N,) visible length of the forearm in mm


@dataclass(frozen=True)
class Pose:
    """Angles of N hands in radians."""

    knuckles: np.ndarray  # (N, 4) flexion
    middles: np.ndarray  # (N, 4) flexion
    abductions: np.ndarray  # (N, 4)
    opposition: np.ndarray  # (N,)
    thumb: np.ndarray  # (N, 3) flexion


@dataclass(frozen=True)
class Hands:
    """N hands as solids, in mm. A bone's radius is interpolated linearly between the balls at its ends."""

    points: np.ndarray  # (N, BALLS + 1, 3): the balls' centres, then the palm's
    radii: np.ndarray  # (N, BALLS)
    axes: np.ndarray  # (N, 3, 3): a row for each semi-axis of the palm, its direction times its length

    def moved(self, rotation: np.ndarray, shift: np.ndarray) -> "Hands":
        """Rotated by ``rotation`` (N, 3, 3), then translated by ``shift`` (N, 3)."""
        return Hands(_turn(rotation, self.points) + shift[:, None], self.radii, _turn(rotation, self.axes))


def _turn(rotation: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Rotations (N, 3, 3) of vectors (N, K, 3). Written out, because results of BLAS may depend on N."""
    return np.stack([(rotation[:, None, row] * vectors).sum(-1) for row in range(3)], -1)


def assemble(shape: Shape, pose: Pose) -> Hands:
    """Forward kinematics: N hands in their own frame."""
    count = len(shape.scale)
    scale, girth = shape.scale[:, None, None], (shape.scale * shape.girth)[:, None]
    points, radii = np.empty((count, BALLS + 1, 3)), np.empty((count, BALLS))
    fingers = points[:, :THUMB].reshape(count, len(FINGERS), 5, 3)  # a view
    fingers[:, :, 0], fingers[:, :, 1] = BASES * scale, KNUCKLES * scale
    angle = FAN + pose.abductions
    straight = np.stack([np.sin(angle), np.cos(angle), np.zeros_like(angle)], -1)
    inward = np.array([0.0, 0.0, 1.0])
    lengths = PHALANGES * shape.digits[:, :4, None] * scale
    flexions = np.stack([pose.knuckles, pose.middles, pose.middles * (2 / 3)], -1)
    fingers[:, :, 2:] = _chain(fingers[:, :, 1], straight, np.broadcast_to(inward, straight.shape), lengths, flexions)
    points[:, THUMB] = THUMB_BASE * scale[:, 0]
    straight, inward = _thumb_plane(pose.opposition)
    lengths = THUMB_BONES * shape.digits[:, 4, None] * scale[:, 0]
    points[:, THUMB + 1 : FOREARM] = _chain(points[:, THUMB], straight, inward, lengths, pose.thumb)
    points[:, FOREARM : FOREARM + 2] = WRIST * scale
    points[:, FOREARM + 2 : BALLS] = points[:, FOREARM : FOREARM + 2] * [1.0, 0.0, 1.0]
    points[:, FOREARM + 2 : BALLS, 1] -= shape.forearm[:, None]
    points[:, PALM] = PALM_CENTRE * scale[:, 0]
    rest = [*FINGER_RADII.ravel(), *THUMB_RADII, *[WRIST_RADIUS] * 2, *[FOREARM_RADIUS] * 2]
    radii[:] = np.array(rest) * girth
    axes = np.eye(3) * PALM_AXES * scale
    axes[:, 2] *= shape.girth[:, None]
    return Hands(points, radii, axes)


def _chain(
    start: np.ndarray, straight: np.ndarray, inward: np.ndarray, lengths: np.ndarray, flexions: np.ndarray
) -> np.ndarray:
    """Ends (…, bones, 3) of a chain of bones that bend in one plane.

    The chain begins at ``start`` (…, 3). Each bone points along ``straight``, rotated towards ``inward`` by the sum of
    the flexions up to its own; both are orthogonal unit vectors.
    """
    total = flexions.cumsum(-1)[..., None]
    steps = (np.cos(total) * straight[..., None, :] + np.sin(total) * inward[..., None, :]) * lengths[..., None]
    return start[..., None, :] + steps.cumsum(-2)


def _thumb_plane(opposition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The direction of a straight thumb, (N, 3), and the orthogonal direction in which it bends."""
    sine, cosine, zero = np.sin(opposition), np.cos(opposition), np.zeros_like(opposition)
    side = np.stack([0.8 * cosine, zero, 0.8 * sine], -1) + [0.0, 0.6, 0.0]  # unit length
    across = np.stack([-0.6 * cosine, zero, -0.6 * sine], -1) + [0.0, 0.8, 0.0]  # unit length, orthogonal to it
    palmwards = np.stack([-sine, zero, cosine], -1)  # orthogonal to both
    return side, 0.8 * across + 0.6 * palmwards
