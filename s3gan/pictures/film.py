"""The film strip: rows of samples with fixed class and noise, at increasing training time.

Its frames are the sample pictures that training wrote, and the checkpoints that are still there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cluster_jobs.core.errors import UserError
from cluster_jobs.reporting.curves import short
from cluster_jobs.reporting.section import Picture, Section, left_out
from cluster_jobs.training.checkpoint import CheckpointStore
from cluster_jobs.training.frozen_config import read_frozen
from s3gan.inference.loading import load_generator
from s3gan.inference.network_file import read_network
from s3gan.pictures import sample_grid
from s3gan.pictures.sheet import sheet_png

FRAMES, ROWS = 12, 8  # at most
SECTION = ("film", "Over training")

LOOK = (
    "A row is one class and one noise vector, from left to right after more images seen (k thousand, M million). Early "
    "on shapes should settle, later details; a row that keeps changing its content late in training says that the "
    "learning rate is high or the average short; rows that become equal, or worse again, say when to stop."
)


def film(run: Path, device: torch.device) -> Section:
    """The strip of a run of s3gan.train that has a checkpoint. A frame that cannot be had is reported and left out."""
    sources = {int(path.stem): path for path in CheckpointStore(run / "checkpoints").paths()}
    sources |= {int(path.stem): path for path in (run / "samples").glob("*.png") if path.stem.isdecimal()}
    known_nimg = sorted(sources)
    frames = {}
    for nimg in (known_nimg[index] for index in spread(len(known_nimg), FRAMES)):
        try:
            frames[nimg] = _frame(run, sources[nimg], device)
        except UserError as error:  # torn, or deleted by a training that goes on
            print(f"warning: {error}; left out of the film strip", file=sys.stderr, flush=True)
    if len(frames) < 2:
        return left_out(*SECTION, f"a strip needs two sample pictures or checkpoints, the run has {len(frames)}")
    names = read_network(run)["class_names"]
    cells = rows_of_grid(min(len(names), sample_grid.ROWS))
    tiles = [images[row * sample_grid.COLUMNS + column] for row, column in cells for images in frames.values()]
    rows = [f"{names[row]}  z{column}" for row, column in cells]
    png = sheet_png(np.stack(tiles), len(frames), rows=rows, headers=[short(nimg) for nimg in frames])
    caption = f"images seen: {', '.join(f'{nimg:,}' for nimg in frames)}"
    return Section(*SECTION, LOOK, [Picture("film.png", caption, png)])


def _frame(run: Path, source: Path, device: torch.device) -> np.ndarray:
    """The sample grid of a picture, or of a checkpoint with the noise of the pictures."""
    if source.suffix == ".png":
        return sample_grid.read_samples(source, read_network(run))
    generator, _ = load_generator(run, str(source), device)
    config = read_frozen(run)
    assert config is not None, "load_generator has read it"
    return sample_grid.draw_grid(generator, config["seed"])


def spread(count: int, most: int) -> list[int]:
    """At most `most` of range(count), evenly spread, with the first and the last."""
    number = min(count, most)
    return [round(step * (count - 1) / max(number - 1, 1)) for step in range(number)]


def rows_of_grid(classes: int) -> Sequence[tuple[int, int]]:
    """The (row, column) of a sample grid that are shown: at most four classes, as many noise vectors as fit."""
    rows = spread(classes, 4)
    return [(row, column) for row in rows for column in range(min(ROWS // len(rows), sample_grid.COLUMNS))]
