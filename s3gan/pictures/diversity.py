"""Distances between images of one class, generated and real: how varied the images of a class are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cluster_jobs.reporting.section import Picture, Section
from s3gan.pictures.pixel_knn import squared_distances
from s3gan.pictures.plot import figure_png, new_figure
from s3gan.pictures.real import RealImages
from s3gan.pictures.sampler import DrawNoise, SampledSection

SECTION = ("diversity", "Variety within a class")
IMAGES = 50  # of a class

LOOK = (
    "The distances between all pairs of images of a class: the dot is the median, the bar reaches from 10 % to 90 %. "
    "Generated bars left of the real ones mean too little variety within the class (ratio below 1), a smallest "
    "distance near 0 means repeated images. Right of the real ones: images of several classes under one condition, or "
    "noise. Real images are sorted by the labels that the run was trained on; wrong ones among these make real classes "
    "look a little more varied than they are."
)


def pair_distances(images: np.ndarray) -> np.ndarray:
    """Root mean square differences in grey levels of all pairs of images uint8 (n, C, H, W): (n (n - 1) / 2,)."""
    flat = torch.from_numpy(images).flatten(1)
    first, second = np.triu_indices(len(images), 1)
    return np.sqrt(squared_distances(flat, flat).numpy()[first, second] / flat.shape[1])


def diversity(noise: DrawNoise, classes: Sequence[int], names: Sequence[str], real: RealImages) -> SampledSection:
    """IMAGES of each class next to as many real ones; the class grid shows the first of the same samples."""
    z = noise(range(IMAGES)).repeat(len(classes), 1)
    labels = torch.tensor(classes).repeat_interleave(IMAGES)

    def make_section(images: np.ndarray) -> Section:
        generated = [pair_distances(part) for part in images.reshape(len(classes), IMAGES, *images.shape[1:])]
        given = [pair_distances(real.read(real.some_of_class(number, IMAGES))) for number in classes]
        shown = [names[number] for number in classes]
        pictures = [Picture("diversity.png", "distances between two images of a class", _draw(shown, generated, given))]
        rows = [_row(*entry) for entry in zip(shown, generated, given, strict=True)]
        columns = ["class", "generated, median", "real, median", "ratio", "generated, smallest", "real, smallest"]
        text = f"{LOOK}\n\n{IMAGES} generated images of each class, at most as many of the {real.described}."
        return Section(*SECTION, text, pictures, columns, rows)

    return SampledSection("samples of each class", z, labels, make_section)


def _row(name: str, generated: np.ndarray, real: np.ndarray) -> list:
    """A row of the table; None for what a class with fewer than two real images lacks."""
    if not len(real):
        return [name, float(np.median(generated)), None, None, float(generated.min()), None]
    ratio = float(np.median(generated) / np.median(real)) if np.median(real) > 0 else None
    return [name, float(np.median(generated)), float(np.median(real)), ratio, float(generated.min()), float(real.min())]


def _draw(names: Sequence[str], generated: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> bytes:
    figure = new_figure(8, 1.2 + 0.34 * len(names))
    axes = figure.subplots()
    for label, groups, offset in (("real", real, -0.16), ("generated", generated, 0.16)):
        known = [(row, np.quantile(group, [0.1, 0.5, 0.9])) for row, group in enumerate(groups) if len(group)]
        if known:
            heights = np.array([row for row, _ in known]) + offset
            low, middle, high = np.array([quantiles for _, quantiles in known]).T
            axes.errorbar(middle, heights, xerr=[middle - low, high - middle], fmt="o", markersize=4, label=label)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("root mean square difference of two images, grey levels")
    axes.legend(frameon=False, fontsize="small", ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure_png(figure)
