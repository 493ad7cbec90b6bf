"""Eyes labelled with their gaze: clean drawings (``simulator``) and a synthetic replacement for photos (``camera``).

An image is a pure function of (domain, size, seed, split, index). Images are drawn in blocks of neighbours, which
is fast in NumPy and does not affect results: each has its own random generator, and all arithmetic is elementwise.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simgan.simulators.eye_camera import photograph
from simgan.simulators.eye_factors import as_annotation, draw_factors, generators
from simgan.simulators.eye_geometry import iris_outline, locate
from simgan.simulators.eye_painting import paint

BLOCK = 64  # images drawn at once: their arrays fit a processor's cache
DOMAINS = ("simulator", "camera")
PIXEL_DECIMALS = 3

EyeBlock = tuple[np.ndarray, list[dict[str, Any]]]  # uint8 (N, 1, height, width) and the annotations


@dataclass
class Eyes:
    """A source (see ``cluster_jobs.packing``) of the first ``count`` images of a split.

    There are no classes: an eye's label is its annotation, see :func:`draw`.
    """

    count: int
    height: int
    width: int
    seed: int
    split: str
    domain: str = "simulator"
    mode: str = "L"
    _drawn: tuple[int, EyeBlock] | None = field(default=None, repr=False, compare=False)  # the block read last

    def __post_init__(self) -> None:
        assert self.domain in DOMAINS
        self.classes: list[str] = []
        self.labels = np.full(self.count, -1, np.int32)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{self.split}[{index}]"

    def read(self, index: int) -> tuple[np.ndarray, None, dict[str, Any]]:
        """Picture ``index``, uint8 (1, height, width), and its annotation; draws the block in which it lies."""
        number, position = divmod(index, BLOCK)
        if self._drawn is None or self._drawn[0] != number:
            first = number * BLOCK
            indices = range(first, min(first + BLOCK, self.count))
            self._drawn = number, draw(self.domain, self.height, self.width, self.seed, self.split, indices)
        images, annotations = self._drawn[1]
        return images[position], None, annotations[position]

    def paths(self, index: int) -> tuple[()]:
        return ()

    def digest(self) -> str:
        """Digest of the first images: it changes with the simulator and with the libraries that draw them."""
        indices = range(min(self.count, BLOCK))
        images, annotations = draw(self.domain, self.height, self.width, self.seed, self.split, indices)
        return hashlib.sha256(images.tobytes() + repr(annotations).encode()).hexdigest()


def draw(domain: str, height: int, width: int, seed: int, split: str, indices: range) -> EyeBlock:
    """Draws some images of a split.

    Returns:
        uint8 (N, 1, height, width), and the annotations: ``gaze`` (unit vector in the camera's frame: x right, y up, z
        towards the camera), ``head`` (pitch and yaw, radians), ``pupil`` (x right, y down, pixels; the centre of the
        top left pixel is 0, 0), ``iris`` (32 such points of the outline, covered or not) and every ``factor`` drawn.
    """
    own = generators(domain, seed, split, indices)
    factors = draw_factors(domain, own)
    geometry = locate(factors, height, width)
    painting = paint(factors, geometry, height, width)
    if domain == "camera":
        images = photograph(painting, factors, own)
    else:
        images = np.rint(np.clip(painting.tone, 0, 1) * 255).astype(np.uint8)
    gaze, head = np.round(geometry.gaze, 6).tolist(), np.round(geometry.head, 6).tolist()
    pupil = np.round(geometry.pupil, PIXEL_DECIMALS).tolist()
    outline = np.round(iris_outline(geometry), PIXEL_DECIMALS).tolist()
    annotations = [
        {
            **{"gaze": gaze[index], "head": head[index], "pupil": pupil[index], "iris": outline[index]},
            "factors": as_annotation(factors, index),
        }
        for index in range(len(indices))
    ]
    return images[:, None], annotations
