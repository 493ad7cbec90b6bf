"""The truncation sweep: the same draws, cut off at ever larger values (Brock et al. 2019, section 3.1)."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from cluster_jobs.core.errors import UserError
from cluster_jobs.reporting.section import Picture, Section
from s3gan.pictures.sampler import DrawNoise, SampledSection
from s3gan.pictures.sheet import sheet_png

SECTION = ("truncation", "Truncated noise")
CLASSES = 3  # shown at most

LOOK = (
    "Every column is one draw: noise at the same quantiles of the normal distribution cut off at the threshold beside "
    "the row, so that it moves towards the mean from the last row of a class up to its first. Upwards images should "
    "grow more typical and more alike. Artefacts or grey, washed-out images at small thresholds say that this "
    "generator does not bear truncation; a good threshold is the smallest whose row still shows the variety that you "
    "need."
)


def parse_thresholds(text: str) -> list[float]:
    """Numbers above 0 separated by commas, ascending. Raises UserError for anything else."""
    try:
        thresholds = sorted({float(part) for part in text.split(",")})
    except ValueError:
        thresholds = []
    if not thresholds or not all(0 < value < math.inf for value in thresholds):
        raise UserError(f"thresholds={text}: expected numbers above 0 separated by commas, such as 0.25,0.5,1,2")
    return thresholds


def truncation_sweep(
    noise: DrawNoise, classes: Sequence[int], names: Sequence[str], samples: int, thresholds: Sequence[float]
) -> SampledSection:
    """For each of a few classes one row per threshold and one without, `samples` draws across."""
    classes = classes[:CLASSES]
    cuts = [*thresholds, math.inf]  # without a limit, and still from the same uniform draws
    z = torch.cat([noise(range(samples), truncation=cut) for cut in cuts]).repeat(len(classes), 1)
    labels = torch.tensor(classes).repeat_interleave(samples * len(cuts))

    def make_section(images: np.ndarray) -> Section:
        levels = [*(f"{cut:g}" for cut in thresholds), "none"]
        rows = [f"{names[number]}  {level}" for number in classes for level in levels]
        caption = f"{', '.join(names[number] for number in classes)}; noise cut off at {', '.join(levels)}"
        pictures = [Picture("truncation.png", caption, sheet_png(images, samples, rows=rows))]
        return Section(*SECTION, LOOK, pictures)

    return SampledSection("the truncation sweep", z, labels, make_section)
