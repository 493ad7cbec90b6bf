"""NYU hand pose (Tompson et al. 2014): ``train`` and ``test`` with ``depth_1_0000001.png`` (Kinect), the rendered
``synthdepth_1_0000001.png``, and ``joint_data.mat`` (``joint_uvd (3 views, N, 36, 3)``: pixels and mm). View 1 is read,
the frontal one.

An image is an 8-bit RGB PNG of 640 × 480 pixels whose green is the high and blue the low byte of the depth in mm. The
hand is located in the rendered image, also for the real one, as SimGAN's authors did; the crop is 300 mm around it.
"""

import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from cluster_jobs.core.errors import UserError
from cluster_jobs.packing.sources import NoImage, Read, Source
from simgan.conventions.depth import HALF_RANGE, to_grey
from simgan.readers.matlab import read_variable

WIDTH, HEIGHT = 640, 480
FOCAL = np.array([588.235, 587.084])  # pixels, x and y
PRINCIPAL = np.array([320.0, 240.0])
VIEWS, JOINTS = 3, 36
FAR = 2000  # mm; in rendered images nothing but the hand is nearer (from memory)
HAND_PIXELS = 50  # a rendered hand covers thousands
PREFIXES = {"simulator": "synthdepth", "camera": "depth"}

# The 14 joints that are compared on NYU (from memory), in the order of hand_skeleton.JOINT_NAMES: tip and second joint
# of four fingers, little to index; three of the thumb; wrist, wrist, palm. Names as joint_data.mat gives them.
EVALUATED = (0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32)
EXPECTED = f"joint_uvd of {VIEWS} views × N frames × {JOINTS} joints × 3"


@dataclass
class Nyu:
    """A source of one split, without classes; annotations are those of ``simulators/hands.py``."""

    directory: Path
    domain: str
    size: int
    mode: str = "L"
    classes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(joints(self.directory))
        if not count:
            raise UserError(f"{self.directory / 'joint_data.mat'}: joint_uvd has no frames, expected {EXPECTED}")
        names = set(os.listdir(self.directory))
        for index in range(count):
            for name in (picture("synthdepth", index), picture(PREFIXES[self.domain], index)):
                if name not in names:
                    raise UserError(f"{self.directory / name}: no such file, but joint_data.mat has {count} frames")
        self.labels = np.full(count, -1, np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"{self.directory.name}/{picture(PREFIXES[self.domain], index)}"

    def digest(self) -> str:
        where = self.directory.name, self.domain, str(len(self))
        return hashlib.sha256("\0".join(where).encode() + joints(self.directory).tobytes()).hexdigest()

    def paths(self, index: int) -> Sequence[Path]:
        """The images; the digest covers the joints."""
        return [self.directory / picture(prefix, index) for prefix in ("synthdepth", PREFIXES[self.domain])]

    def read(self, index: int) -> Read:
        """The cropped hand, no label, and its 14 joints.

        Raises:
            NoImage: the image is damaged or shows no hand, or a joint is not finite.
        """
        rendered = read_depth(self.directory / picture("synthdepth", index))
        centre = find_hand(rendered, self.directory / picture("synthdepth", index))
        depth = rendered if self.domain == "simulator" else read_depth(self.directory / picture("depth", index))
        scale = self.size * centre[2] / (2 * HALF_RANGE * FOCAL)  # pixels of the crop in one of the image, x and y
        middle = (self.size - 1) / 2
        marked = joints(self.directory)[index]
        if not np.isfinite(marked).all():
            raise NoImage(f"joint_data.mat: joint_uvd of frame {index + 1} holds what is no number")
        points = marked - centre
        points[:, :2] = points[:, :2] * scale + middle
        position = np.append((centre[:2] - PRINCIPAL) * centre[2] / FOCAL, centre[2])
        annotation = {"joints": np.round(points, 2).tolist(), "centre_mm": np.round(position, 2).tolist()} | {
            "half_range_mm": HALF_RANGE,
            "file": self.name(index),
        }
        return to_grey(crop(depth, centre, scale, self.size))[None], None, annotation


def picture(prefix: str, index: int) -> str:
    """The file name of a frame; frames are counted from 1."""
    return f"{prefix}_1_{index + 1:07d}.png"


@functools.lru_cache(maxsize=4)
def joints(directory: Path) -> np.ndarray:
    """(N, 14, 3) float64 of a split: u, v in pixels, depth in mm. Raises UserError naming the file."""
    file = directory / "joint_data.mat"
    joint_uvd = read_variable(file, "joint_uvd", EXPECTED)
    if (
        joint_uvd.ndim != 4
        or joint_uvd.shape[0] != VIEWS
        or joint_uvd.shape[2:] != (JOINTS, 3)
        or joint_uvd.dtype.kind != "f"
    ):
        raise UserError(
            f"{file}: joint_uvd is {' × '.join(map(str, joint_uvd.shape))} {joint_uvd.dtype}, expected {EXPECTED}"
        )
    return joint_uvd[0][:, EVALUATED].astype(np.float64)


def read_depth(file: Path) -> np.ndarray:
    """(480, 640) int64 mm, 0 where nothing was measured. Raises NoImage."""
    try:
        with Image.open(file, formats=("PNG",)) as opened:
            mode, size = opened.mode, opened.size
            pixels = np.asarray(opened).astype(np.int64)
    except (OSError, SyntaxError, ValueError) as error:
        raise NoImage(f"{file.name}: expected a PNG ({error})") from error
    if mode != "RGB" or size != (WIDTH, HEIGHT):
        raise NoImage(
            f"{file.name}: {mode} of {size[0]} × {size[1]}, expected RGB of {WIDTH} × {HEIGHT} with the depth in green "
            "and blue"
        )
    return pixels[..., 1] * 256 + pixels[..., 2]


def find_hand(rendered: np.ndarray, file: Path) -> np.ndarray:
    """The centre (3,) of the hand in a rendered image: the means of u and v in pixels and of the depth in mm."""
    rows, columns = np.nonzero((rendered > 0) & (rendered < FAR))
    if len(rows) < HAND_PIXELS:
        raise NoImage(f"{file.name}: {len(rows)} pixels nearer than {FAR} mm, expected a rendered hand")
    return np.array([columns.mean(), rows.mean(), rendered[rows, columns].mean()])


def crop(depth: np.ndarray, centre: np.ndarray, scale: np.ndarray, size: int) -> np.ndarray:
    """The crop (size, size) in mm behind the centre, infinity for the background.

    Sampling is by nearest neighbour, because the mean of two depths is the depth of neither.
    """
    coordinates = (np.arange(size) - (size - 1) / 2)[:, None] / scale + centre[:2]
    columns, rows = np.rint(coordinates).astype(np.int64).T
    inside = ((rows >= 0) & (rows < HEIGHT))[:, None] & ((columns >= 0) & (columns < WIDTH))
    nearest = depth[rows.clip(0, HEIGHT - 1)[:, None], columns.clip(0, WIDTH - 1)]
    return np.where(inside & (nearest > 0), nearest - centre[2], np.inf)


def nyu(path: Path, domain: str, size: int) -> dict[str, Source]:
    """Both splits of one domain: ``simulator`` (rendered) or ``camera`` (Kinect). Raises UserError."""
    splits = [split for split in ("train", "test") if (path / split).is_dir()]
    if "train" not in splits:
        raise UserError(f"path={str(path)!r}: expected the directories train and test of the NYU hand pose data")
    return {split: Nyu(path / split, domain, size) for split in splits}
