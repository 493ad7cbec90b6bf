"""UnityEyes (Wood et al. 2016): a directory of ``N.jpg`` and ``N.json``, every value in the JSON a string.

The crop is 140 × 84 pixels of an image 640 wide (in proportion for other widths) around the interior margin of the
lids, resized to 35 × 55 pixels. Eyes keep the orientation of UnityEyes: the inner corner is at the image's left.
"""

import ast
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cluster_jobs.core.errors import UserError
from cluster_jobs.packing.sources import NoImage, Read
from simgan.conventions.gaze_frame import from_unityeyes, head_of_unityeyes

CROP = (84.0, 140.0)  # height and width in an image of 640 pixels
CROPPED_FROM = 640
MAX_SHOWN = 60  # characters of a value in a message


@dataclass
class UnityEyes:
    """A source of all images of a directory in the order of their numbers, without classes."""

    path: Path
    height: int = 35
    width: int = 55
    mode: str = "L"
    classes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            raise UserError(f"path={str(self.path)!r}: no such directory")
        self.stems = sorted((file.stem for file in self.path.glob("*.json")), key=lambda stem: (len(stem), stem))
        if not self.stems:
            raise UserError(
                f"path={str(self.path)!r}: expected N.jpg and N.json as UnityEyes writes them, found no .json"
            )
        self.labels = np.full(len(self.stems), -1, np.int32)

    def __len__(self) -> int:
        return len(self.stems)

    def name(self, index: int) -> str:
        return f"{self.stems[index]}.json"

    def digest(self) -> str:
        return hashlib.sha256("\0".join(self.stems).encode()).hexdigest()

    def paths(self, index: int) -> Sequence[Path]:
        stem = self.path / self.stems[index]
        return stem.with_suffix(".json"), stem.with_suffix(".jpg")

    def read(self, index: int) -> Read:
        """The crop, no label, and the annotation of the gaze task. Raises NoImage naming the file and what it lacks."""
        stem = self.path / self.stems[index]
        facts = _json(stem.with_suffix(".json"))
        try:
            with Image.open(stem.with_suffix(".jpg")) as file:
                picture = file.convert("L")
        except (OSError, SyntaxError, ValueError) as error:
            raise NoImage(f"{stem.with_suffix('.jpg')}: no readable picture ({error})") from error
        return self._cropped(picture, facts, stem.with_suffix(".json"))

    def _cropped(self, picture: Image.Image, facts: dict[str, Any], file: Path) -> Read:
        margin = _points(facts, "interior_margin_2d", picture.height, file)
        iris = _points(facts, "iris_2d", picture.height, file)
        look = _numbers(_inside(facts, "eye_details", file), "look_vec", file)[:3]
        if not look.any():
            raise NoImage(f"{file}: look_vec is zero, expected a direction")
        head = _numbers(facts, "head_pose", file)
        middle = (margin.min(0) + margin.max(0)) / 2
        tall, wide = (side * picture.width / CROPPED_FROM for side in CROP)
        left, top = middle[0] - wide / 2, middle[1] - tall / 2
        if left < 0 or top < 0 or left + wide > picture.width or top + tall > picture.height:
            raise NoImage(f"{file}: the crop around interior_margin_2d leaves the picture of {picture.size}")
        box = (left, top, left + wide, top + tall)
        image = picture.resize((self.width, self.height), Image.Resampling.LANCZOS, box=box)
        outline = (iris - (left, top)) * (self.width / wide, self.height / tall) - 0.5
        annotation = {
            "gaze": from_unityeyes(look).tolist(),
            "head": head_of_unityeyes(head).tolist(),
            "pupil": outline.mean(0).tolist(),
            "iris": outline.tolist(),
            "file": file.name,
        }
        return np.asarray(image, np.uint8)[None], None, annotation


def _json(file: Path) -> dict[str, Any]:
    try:
        facts = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise NoImage(f"{file}: no readable JSON ({error})") from error
    if not isinstance(facts, dict):
        raise NoImage(f"{file}: expected an object, found {type(facts).__name__}")
    return facts


def _inside(facts: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    if not isinstance(facts.get(name), dict):
        raise NoImage(f"{file}: expected an object {name!r}")
    return facts[name]


def _tuple(text: Any, name: str, file: Path) -> np.ndarray:
    """The numbers of a string like "(0.1, 2.0, 3.5)"."""
    try:
        numbers = np.array(ast.literal_eval(text), np.float64)
    except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):  # as literal_eval warns
        numbers = np.empty(0)
    if numbers.ndim != 1 or len(numbers) < 3 or not np.isfinite(numbers).all():
        raise NoImage(f"{file}: {name} is {_shortened(repr(text))}, expected a string like '(x, y, z)'")
    return numbers


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _numbers(facts: dict[str, Any], name: str, file: Path) -> np.ndarray:
    return _tuple(facts.get(name), name, file)


def _points(facts: dict[str, Any], name: str, height: int, file: Path) -> np.ndarray:
    """(P, 2) of a list of strings, from the image's bottom left corner to distances from its top left one."""
    texts = facts.get(name)
    if not isinstance(texts, list) or len(texts) < 5:
        raise NoImage(f"{file}: {name}: expected a list of at least 5 strings like '(x, y, z)'")
    points = np.array([_tuple(text, name, file)[:2] for text in texts])
    return np.stack([points[:, 0], height - points[:, 1]], 1)
