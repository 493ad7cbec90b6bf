"""The pictures of an evaluation: scored images by class, their nearest training images, bars by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from s3gan.metrics.labelled import Labelled
from s3gan.pictures.plot import figure_png, new_figure
from s3gan.pictures.sheet import sheet_png
from selfsup.labelling.classifier import Pictures

GRID_CLASSES, GRID_COLUMNS = 20, 10


def class_rows(images: Labelled, names: Sequence[str]) -> bytes:
    """One row of images per class, for the first classes that have any."""
    classes = np.unique(images.labels)[:GRID_CLASSES].tolist()
    sheet = []
    for number in classes:
        pictures = _read(images.images, np.flatnonzero(images.labels == number)[:GRID_COLUMNS])
        blank = np.full((GRID_COLUMNS - len(pictures), *pictures.shape[1:]), 255, np.uint8)
        sheet += [pictures, blank]
    return sheet_png(np.concatenate(sheet), GRID_COLUMNS, rows=[names[number] for number in classes])


def neighbour_rows(shown: Sequence[Mapping[str, Any]], samples: Pictures, train: Pictures) -> bytes:
    """One row per sample: its distance, the sample, and its nearest training images.

    Args:
        shown: rows of `nearest_training_score`, with indices of `samples` and `train`.
    """
    tiles = [
        np.concatenate([_read(samples, np.array([row["sample"]])), _read(train, np.array(row["train"]))])
        for row in shown
    ]
    headers = ["sample", *(str(number) for number in range(1, len(tiles[0])))]
    return sheet_png(
        np.concatenate(tiles), len(headers), rows=[f"{row['ratio']:.2f}" for row in shown], headers=headers
    )


def bars(heights: Mapping[str, Sequence[float | None]], classes: Sequence[str], what: str, top: float | None) -> bytes:
    """Groups of bars, one group per class and one bar per name; `top` is the upper end of the axis, None for any."""
    figure = new_figure(max(6.0, 0.9 * len(classes)), 3.6)
    axes = figure.subplots()
    places, width = np.arange(len(classes)), 0.8 / len(heights)
    for number, (name, values) in enumerate(heights.items()):
        known = [np.nan if value is None else value for value in values]
        axes.bar(places + (number - (len(heights) - 1) / 2) * width, known, width, label=name)
    axes.set_xticks(places, classes, rotation=30, ha="right", parse_math=False)
    axes.set_ylim(0, top)
    axes.set_ylabel(what)
    axes.legend(fontsize="small", ncols=len(heights), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
    return figure_png(figure)


def _read(pictures: Pictures, indices: np.ndarray) -> np.ndarray:
    """uint8 (n, C, H, W)."""
    return torch.as_tensor(pictures[indices]).numpy()
