"""MPIIGaze (Zhang et al. 2015), normalised: ``Data/Normalized/pXX/dayYY.mat``, a struct ``data.{left,right}`` of
``image (N, 36, 60) uint8, gaze (N, 3), pose (N, 3)``.

Left eyes are not changed: the inner corner is at the image's left, as in UnityEyes. Right eyes are mirrored, with their
gaze and head pose. No image of a test person is in the training split.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from cluster_jobs.core.errors import UserError
from cluster_jobs.packing.sources import NoImage, Read, Source
from simgan.conventions.gaze_frame import from_mpiigaze, head_of_mpiigaze, mirrored, to_angles, to_vector
from simgan.readers.matlab import read_variable

SIDES = ("left", "right")
FIELDS = ("image", "gaze", "pose")
EXPECTED = "data.{left,right}.{image (N, 36, 60) uint8, gaze (N, 3), pose (N, 3)}"


@dataclass
class MpiiGaze:
    """A source of the eyes of some files, first left then right ones of each, without classes."""

    files: list[Path]
    height: int = 35
    width: int = 55
    mode: str = "L"
    classes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        counts = [[len(load(file)[side][0]) for side in SIDES] for file in self.files]
        self.eyes = [
            (number, side, row)
            for number, sides in enumerate(counts)
            for side, count in zip(SIDES, sides, strict=True)
            for row in range(count)
        ]
        if not self.eyes:
            raise UserError(f"{self.files[0].parent}: no eyes in its files, expected {EXPECTED}")
        self.labels = np.full(len(self.eyes), -1, np.int32)

    def __len__(self) -> int:
        return len(self.eyes)

    def name(self, index: int) -> str:
        number, side, row = self.eyes[index]
        file = self.files[number]
        return f"{file.parent.name}/{file.name}:{side}[{row}]"

    def digest(self) -> str:
        names = [f"{file.parent.name}/{file.name} {file.stat().st_size}" for file in self.files]
        return hashlib.sha256("\0".join([*names, str(len(self))]).encode()).hexdigest()

    def paths(self, index: int) -> Sequence[Path]:
        return (self.files[self.eyes[index][0]],)

    def read(self, index: int) -> Read:
        """An eye, no label, and the annotation of the gaze task without "pupil" and "iris", which the data lack.

        Raises:
            NoImage: the gaze is no direction, or the pose not finite.
        """
        number, side, row = self.eyes[index]
        images, gazes, poses = load(self.files[number])[side]
        if not (np.isfinite([gazes[row], poses[row]]).all() and gazes[row].any()):
            raise NoImage(
                f"gaze {gazes[row].tolist()}, pose {poses[row].tolist()}, expected a direction and a rotation"
            )
        image, gaze = images[row], from_mpiigaze(gazes[row])
        face = to_vector(head_of_mpiigaze(poses[row]))
        if side == "right":
            image, gaze, face = image[:, ::-1], mirrored(gaze), mirrored(face)
        size = (self.width, self.height)
        picture = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS)
        annotation = {"gaze": gaze.tolist(), "head": to_angles(face).tolist(), "file": self.name(index)}
        return np.asarray(picture, np.uint8)[None], None, annotation


@functools.lru_cache(maxsize=4)
def load(file: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Images (N, H, W) uint8, gaze (N, 3) and pose (N, 3) of each side. Raises UserError naming the file."""
    data = read_variable(file, "data", EXPECTED)
    try:
        sides = {side: data[side][0, 0] for side in SIDES}
        arrays = {side: tuple(part[name][0, 0] for name in FIELDS) for side, part in sides.items()}
    except (ValueError, IndexError, TypeError) as error:  # NumPy's, for an array that is no such struct
        raise UserError(f"{file}: expected a MATLAB file with {EXPECTED} ({error})") from error
    for side, (images, gaze, pose) in arrays.items():
        rows = len(images)
        pictures = images.ndim == 3 and images.dtype == np.uint8 and min(images.shape[1:]) > 0
        if not pictures or any(part.shape != (rows, 3) or part.dtype.kind not in "fiu" for part in (gaze, pose)):
            shapes = (f"{name} {part.shape} {part.dtype}" for name, part in zip(FIELDS, arrays[side], strict=True))
            raise UserError(f"{file}: data.{side} holds {', '.join(shapes)}, expected {EXPECTED}")
    return arrays  # type: ignore[return-value]


def mpiigaze(path: Path, persons: str, height: int, width: int) -> dict[str, Source]:
    """Both splits: ``persons`` ("p14" or "p13 p14") are the test split, all others train.

    Raises:
        UserError: there are no such files, a person is unknown, or all persons are named.
    """
    root = next(
        (directory for directory in (path / "Data" / "Normalized", path / "Normalized", path) if directory.is_dir()),
        path,
    )
    files = sorted(root.glob("p[0-9]*/day*.mat"))
    if not files:
        raise UserError(f"path={str(path)!r}: expected Data/Normalized/pXX/dayYY.mat of MPIIGaze, found none")
    present, test = {file.parent.name for file in files}, set(persons.split())
    if not test <= present or test == present:
        raise UserError(f"test_persons={persons}: expected some, not all, of {' '.join(sorted(present))}")
    train = MpiiGaze([file for file in files if file.parent.name not in test], height, width)
    held = MpiiGaze([file for file in files if file.parent.name in test], height, width)
    return {"train": train, "test": held} if test else {"train": train}
