"""The pictures of an evaluation: classes, nearest training images, bars by class."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster_jobs.files import write_atomically
from cluster_jobs.images import save_grid
from s3gan.metrics.labelled import Labelled
from selfsup.classifier import Pictures

GRID_CLASSES, GRID_COLUMNS = 20, 10


def class_grid(path: Path, images: Labelled) -> list[int]:
    """A row of pictures a class, for the first classes that have any; returns those classes."""
    classes = np.unique(images.labels)[:GRID_CLASSES].tolist()
    rows = [np.flatnonzero(images.labels == number)[:GRID_COLUMNS] for number in classes]
    sheet = []
    for row in rows:
        pictures = torch.as_tensor(images.images[row]).numpy()
        blank = np.full((GRID_COLUMNS - len(row), *pictures.shape[1:]), 255, np.uint8)
        sheet += [pictures, blank]
    _save(path, np.concatenate(sheet), GRID_COLUMNS)
    return classes


def neighbour_grid(path: Path, shown: Sequence[Mapping[str, Any]], samples: Pictures, train: Pictures) -> None:
    """A row a sample: the sample, a gap, and its nearest training images; `shown` is that of `memorisation`."""
    sheet = []
    for row in shown:
        sample = torch.as_tensor(samples[np.array([row["sample"]])]).numpy()
        nearest = torch.as_tensor(train[np.array(row["train"])]).numpy()
        sheet += [sample, np.full_like(sample, 255), nearest]
    _save(path, np.concatenate(sheet), len(shown[0]["train"]) + 2)


def bars(
    path: Path, heights: Mapping[str, Sequence[float | None]], classes: Sequence[str], what: str, top: Any
) -> None:
    """Groups of bars, one group a class and one bar a name; `top` is the upper end of the axis, None for any."""
    from matplotlib.figure import Figure  # imports slowly, and only the main rank draws

    figure = Figure(figsize=(max(6.0, 0.9 * len(classes)), 3.6), layout="constrained")
    axes = figure.subplots()
    places, width = np.arange(len(classes)), 0.8 / len(heights)
    for number, (name, values) in enumerate(heights.items()):
        known = [np.nan if value is None else value for value in values]
        axes.bar(places + (number - (len(heights) - 1) / 2) * width, known, width, label=name)
    axes.set_xticks(places, classes, rotation=30, ha="right", parse_math=False)
    axes.set_ylim(0, top)
    axes.set_ylabel(what)
    axes.legend(fontsize="small", ncols=len(heights), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def _save(path: Path, tiles: np.ndarray, columns: int) -> None:
    save_grid(path, tiles, columns, scale=2 if tiles.shape[-1] < 64 else 1)
