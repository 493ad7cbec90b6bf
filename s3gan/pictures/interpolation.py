"""Interpolation: from one noise vector to another within a class, and from class to class under one noise vector.

Noise goes along the great circle (White 2016, arXiv 1609.04468, section 2.1): a straight line would pass through
vectors much shorter than any that the generator was trained on. Conditions go in a straight line through the class
embedding.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cluster_jobs.reporting.section import Picture, Section
from s3gan.pictures.sampler import DrawNoise, SampledSection
from s3gan.pictures.sheet import sheet_png

NOISE = ("interpolation_noise", "Between two noise vectors")
CLASSES = ("interpolation_classes", "Between two classes")
ROWS, STEPS = 8, 9  # rows at most, images a row with both ends

LOOK_NOISE = (
    "A class a row: at both ends images of random noise, between them the great circle. Neighbours should differ a "
    "little, and every image be a plausible one of the class. A sudden jump between images that hardly change "
    "otherwise hints at memorised ones; a middle that is worse than the ends, at parts of the noise that training did "
    "not fill; a row of one image, at noise that is ignored."
)
LOOK_CLASSES = (
    "The noise stays the same, the condition moves in a straight line through the class embedding. What should change "
    "is the class, what should stay is pose, size and background. Both ends should be good images of their class; the "
    "middle was never trained and may be anything between. If nothing changes, the condition is ignored; if all "
    "changes at one step, the embedding is a switch."
)


def slerp(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """(steps, d) of the type of `start`, from `start` (d,) to `end` (d,) at equal angles, both ends included.

    sin((1-t)w)/sin(w) start + sin(tw)/sin(w) end, with w the angle between them (Shoemake 1985). Vectors that are
    parallel, or opposite so that no circle is the great one, are joined by a straight line.
    """
    a, b = start.double(), end.double()
    t = torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]
    angle = torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    if angle.sin() < 1e-6:
        return ((1 - t) * a + t * b).to(start.dtype)
    return ((((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()).to(start.dtype)


def blends(start: int, end: int, steps: int, classes: int) -> Tensor:
    """(steps, classes) float32: all weight on class `start`, then more and more on `end`; rows sum to 1."""
    weights = torch.zeros(steps, classes)
    t = torch.linspace(0, 1, steps)
    weights[:, start] = 1 - t
    weights[:, end] = t
    return weights


def between_noise(noise: DrawNoise, classes: Sequence[int], names: Sequence[str]) -> SampledSection:
    """One class per row, each between two noise vectors of its own."""
    classes = classes[:ROWS]
    ends = noise(range(2 * len(classes)))
    z = torch.cat([slerp(ends[2 * row], ends[2 * row + 1], STEPS) for row in range(len(classes))])
    labels = torch.tensor(classes).repeat_interleave(STEPS)

    def make_section(images: np.ndarray) -> Section:
        shown = [names[number] for number in classes]
        png = sheet_png(images, STEPS, rows=shown)
        caption = f"a class a row, from the top: {', '.join(shown)}"
        return Section(*NOISE, LOOK_NOISE, [Picture("between_noise.png", caption, png)])

    return SampledSection("interpolation of noise", z, labels, make_section)


def between_classes(noise: DrawNoise, classes: Sequence[int], names: Sequence[str]) -> SampledSection:
    """One pair of classes per row, each beginning where the row above ends; of at least two classes."""
    classes = classes[: ROWS + 1]
    pairs = list(zip(classes, classes[1:], strict=False))
    weights = torch.cat([blends(start, end, STEPS, len(names)) for start, end in pairs])
    z = noise([0]).repeat(len(weights), 1)

    def make_section(images: np.ndarray) -> Section:
        rows = [f"{names[start]} → {names[end]}" for start, end in pairs]
        png = sheet_png(images, STEPS, rows=rows)
        caption = f"a pair of classes a row, from the top: {', '.join(rows)}"
        return Section(*CLASSES, LOOK_CLASSES, [Picture("between_classes.png", caption, png)])

    return SampledSection("interpolation of classes", z, weights, make_section)
