"""The class grid: one class per row, the same noise in every column."""

from collections.abc import Sequence

import numpy as np
import torch

from cluster_jobs.reporting.section import Picture, Section
from s3gan.pictures.sampler import DrawNoise, SampledSection
from s3gan.pictures.sheet import sheet_png

SECTION = ("class_grid", "Classes and noise")
LOOK = (
    "Along a row, one class: are all images of that class, and how much do they differ? Down a column, one noise "
    "vector: what stays the same from class to class (pose, size, background) is what the noise has learned to say. "
    "Rows that look alike are classes that the generator does not tell apart; images that repeat within a row are "
    "collapse."
)


def class_grid(noise: DrawNoise, classes: Sequence[int], names: Sequence[str], samples: int) -> SampledSection:
    """`samples` images of each of the classes (numbers), noise 0 to samples - 1 in every row."""
    z = noise(range(samples)).repeat(len(classes), 1)
    labels = torch.tensor(classes).repeat_interleave(samples)
    shown = [names[number] for number in classes]

    def make_section(images: np.ndarray) -> Section:
        png = sheet_png(images, samples, rows=shown)
        caption = f"{len(classes)} of {len(names):,} classes, from the top: {', '.join(shown)}"
        return Section(*SECTION, LOOK, [Picture("class_grid.png", caption, png)])

    return SampledSection("the class grid", z, labels, make_section)
