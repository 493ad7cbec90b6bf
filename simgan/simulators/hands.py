"""Depth images of hands: a right hand before a depth camera, clean or as a Kinect would see it.

It is a synthetic replacement for the NYU hand pose data: ``domain=simulator`` for its rendered images,
``domain=camera`` for its real ones, with the noise of ``depth_camera.py`` and lost fingertips. A camera at the origin
looks along z, x to the right, y down, in mm; an image shows 300 mm around the hand's centre.
"""

import functools
import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cluster_jobs.core.seeds import derive_seed
from simgan.conventions.depth import HALF_RANGE, to_grey
from simgan.simulators import hand_skeleton as skeleton
from simgan.simulators.depth_camera import Noise, draw_noise, sense, together
from simgan.simulators.ray_casting import View, render

BLOCK = 32  # images drawn at once; none depends on the others

Range = tuple[float, float]


@dataclass(frozen=True)
class Population:
    """The ranges of hand shapes and poses of a domain. Factors are uniform in their range unless stated otherwise."""

    scale: Range  # of the whole hand
    digits: Range  # of each digit's bones, in addition
    girth: Range  # of thicknesses, in addition
    forearm: Range  # visible length, mm
    roll: Range  # degrees in the image's plane
    pitch: Range  # degrees, the fingers towards the camera
    yaw: Range  # degrees about the hand's length
    curl: Range  # how far fingers are bent, 0 to 1
    loose: float  # share of fingers that bend independently of the others
    distance: Range = (620.0, 880.0)  # mm of the hand's centre
    aside: Range = (-110.0, 110.0)  # mm, in both directions
    off_centre: float = 10.0  # mm, how far the image's centre may lie from the hand's along each axis
    missing: float = 0.0  # share of digits whose last bone the camera misses; half of them lose the one before as well


SIMULATOR = Population(
    scale=(0.9, 1.12),
    digits=(0.92, 1.08),
    girth=(0.92, 1.22),
    forearm=(50.0, 110.0),
    roll=(-50.0, 50.0),
    pitch=(-45.0, 45.0),
    yaw=(-70.0, 70.0),
    curl=(0.0, 1.0),
    loose=0.5,
)
# NYU's synthetic images are drawn in the poses of its real ones, and real ones are cropped by them: the domains
# differ in what the camera sees of one population.
CAMERA = replace(SIMULATOR, missing=0.05)
POPULATIONS = {"simulator": SIMULATOR, "camera": CAMERA}

FACTORS = {  # the number of uniform random numbers of each
    **{"scale": 1, "digits": 5, "girth": 1, "forearm": 1, "roll": 1, "pitch": 1, "yaw": 1},
    **{"curl": 1, "loose": 4, "own": 4, "knuckles": 4, "middles": 4, "abductions": 4, "spread": 1},
    **{"opposition": 1, "thumb": 3, "place": 3, "off_centre": 3, "missing": 5},
}


@dataclass
class DepthHands:
    """A source (see ``cluster_jobs.packing``) of the first ``count`` images of a split."""

    count: int
    size: int
    seed: int
    split: str
    domain: str  # "simulator" or "camera"
    mode: str = "L"

    def __post_init__(self) -> None:
        self.classes: list[str] = []
        self.labels = np.full(self.count, -1, np.int32)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{self.split}[{index}]"

    def read(self, index: int) -> tuple[np.ndarray, None, dict[str, Any]]:
        """Image ``index``, uint8 (1, size, size), no label, and its annotation; see :func:`draw`."""
        images, annotations = _block(self.size, self.seed, self.split, self.domain, index // BLOCK)
        return images[index % BLOCK], None, annotations[index % BLOCK]

    def paths(self, index: int) -> tuple[()]:
        return ()

    def digest(self) -> str:
        """Digest of the first images: it changes with the simulator and the libraries that draw them."""
        images = [self.read(index)[0].tobytes() for index in range(min(self.count, 2 * BLOCK))]
        return hashlib.sha256(b"".join(images)).hexdigest()


@functools.lru_cache(maxsize=2)
def _block(size: int, seed: int, split: str, domain: str, block: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    return draw(size, seed, split, domain, range(block * BLOCK, (block + 1) * BLOCK))


def draw(size: int, seed: int, split: str, domain: str, indices: range) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Draws images of a split; each is a pure function of (size, seed, split, domain) and its index.

    Returns:
        (N, 1, size, size) uint8 as ``simgan.conventions.depth`` says, and annotations: ``joints``, 14 of [x, y, z] with
        x, y in pixels and z in mm behind ``centre_mm``, of ``hand_skeleton.JOINT_NAMES``; ``half_range_mm``.
    """
    drawn, noise = drawn_factors(size, seed, split, domain, indices)
    hands, view = place(drawn, POPULATIONS[domain], size)
    radii = _without_missing(hands.radii, drawn["missing"], POPULATIONS[domain].missing)
    depth = render(view, hands.points, radii, skeleton.BONES, hands.axes)
    if noise:
        depth = sense(depth, view.centres[:, 2], view.focal, together(noise))
    joints = np.round(view.project(hands.points[:, skeleton.JOINTS]), 2)
    annotations: list[dict[str, Any]] = [
        {"joints": points.tolist(), "centre_mm": np.round(centre, 2).tolist(), "half_range_mm": HALF_RANGE}
        for points, centre in zip(joints, view.centres, strict=True)
    ]
    return to_grey(depth)[:, None], annotations


def drawn_factors(
    size: int, seed: int, split: str, domain: str, indices: range
) -> tuple[dict[str, np.ndarray], list[Noise]]:
    """All random draws: uniform numbers (N, count) by factor, and for domain=camera the noise of each image."""
    numbers, noise = [], []
    for index in indices:
        random = np.random.default_rng(derive_seed("hands", domain, seed, split, index))
        numbers.append(random.random(sum(FACTORS.values())))
        if domain == "camera":
            noise.append(draw_noise(random, size))
    ends = np.cumsum(list(FACTORS.values()))[:-1]
    return dict(zip(FACTORS, np.split(np.stack(numbers), ends, 1), strict=True)), noise


def place(drawn: dict[str, np.ndarray], population: Population, size: int) -> tuple[skeleton.Hands, View]:
    """Places the hands in front of the camera; returns them and the view of each."""

    def spread(name: str) -> np.ndarray:
        return _between(getattr(population, name), drawn[name])

    shape = skeleton.Shape(spread("scale")[:, 0], spread("digits"), spread("girth")[:, 0], spread("forearm")[:, 0])
    hands = skeleton.assemble(shape, _pose(drawn, population))
    rotation = _rotation(*(np.radians(spread(name)[:, 0]) for name in ("roll", "pitch", "yaw")))
    hands = hands.moved(rotation, np.zeros((len(rotation), 3)))
    ranges = population.aside, population.aside, population.distance
    middle = np.stack([_between(limits, share) for limits, share in zip(ranges, drawn["place"].T, strict=True)], -1)
    hands = hands.moved(np.broadcast_to(np.eye(3), rotation.shape), middle - hands.points[:, skeleton.JOINTS].mean(1))
    centres = middle + population.off_centre * (2 * drawn["off_centre"] - 1)
    return hands, View(centres, 2 * HALF_RANGE, size)


def _pose(drawn: dict[str, np.ndarray], population: Population) -> skeleton.Pose:
    """Random poses: fingers bend together, except for loose ones; knuckle and middle joint vary around the finger."""
    own = np.where(drawn["loose"] < population.loose, drawn["own"], drawn["curl"])
    curl = _between(population.curl, own)
    knuckles, middles = ((curl + 0.5 * (drawn[name] - 0.5)).clip(0, 1) for name in ("knuckles", "middles"))
    apart = 0.5 * drawn["spread"] * skeleton.APART + (drawn["abductions"] - 0.5)
    thumb = [_between(limits, share) for limits, share in zip(skeleton.THUMB_FLEXION, drawn["thumb"].T, strict=True)]
    return skeleton.Pose(
        np.radians(_between(skeleton.KNUCKLE_FLEXION, knuckles)),
        np.radians(_between(skeleton.MIDDLE_FLEXION, middles)),
        np.radians(_between(skeleton.ABDUCTION, (1 + apart * (1 - 0.8 * curl)) / 2)),
        np.radians(_between(skeleton.THUMB_OPPOSITION, drawn["opposition"][:, 0])),
        np.radians(np.stack(thumb, -1)),
    )


def _between(limits: Range, share: np.ndarray) -> np.ndarray:
    return limits[0] + (limits[1] - limits[0]) * share


def _rotation(roll: np.ndarray, pitch: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """(N, 3, 3) from the hand's frame to the camera's: unturned, fingers point up and the palm faces the camera."""
    zero, one = np.zeros_like(roll), np.ones_like(roll)

    def matrix(*rows: list[np.ndarray]) -> np.ndarray:
        return np.stack([np.stack(row, -1) for row in rows], -2)

    about_y = matrix([np.cos(yaw), zero, np.sin(yaw)], [zero, -one, zero], [np.sin(yaw), zero, -np.cos(yaw)])
    about_x = matrix([one, zero, zero], [zero, np.cos(pitch), -np.sin(pitch)], [zero, np.sin(pitch), np.cos(pitch)])
    about_z = matrix([np.cos(roll), -np.sin(roll), zero], [np.sin(roll), np.cos(roll), zero], [zero, zero, one])
    return _product(about_z, _product(about_x, about_y))


def _product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Products of (N, 3, 3), written out so that no result depends on N."""
    return (first[..., :, :, None] * second[..., None, :, :]).sum(-2)


def _without_missing(radii: np.ndarray, drawn: np.ndarray, share: float) -> np.ndarray:
    """Radii with 0 for the balls that the camera misses. Labels do not change."""
    radii = radii.copy()
    for digit, ends in enumerate(skeleton.DIGIT_ENDS):
        for ball, limit in zip(reversed(ends), (share, share / 2), strict=True):
            radii[drawn[:, digit] < limit, ball] = 0
    return radii
