"""The film strip: the same class and noise after more and more images seen.

Its frames are the sample pictures that training wrote, and the checkpoints that are still there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cluster_jobs.checkpoint import CheckpointStore
from cluster_jobs.curves import short
from cluster_jobs.freeze import read_frozen
from s3gan.gallery import COLUMNS, draw_grid, read_samples
from s3gan.pictures.exhibit import Exhibit, Picture, left_out
from s3gan.pictures.sheet import sheet_png
from s3gan.snapshot import load_generator, read_network

FRAMES, ROWS = 12, 8  # at most
SECTION = ("film", "Over training")

LOOK = (
    "A row is one class and one noise vector, from left to right after more images seen (k thousand, M million). Early "
    "on shapes should settle, later details; a row that keeps changing its content late in training says that the "
    "learning rate is high or the average short; rows that become equal, or worse again, say when to stop."
)


def film(run: Path, device: torch.device) -> Exhibit:
    """The strip of a run of s3gan.train that has a checkpoint."""
    network, config = read_network(run), read_frozen(run)
    assert config is not None, "a checkpoint of this run was loaded"
    frames = {
        int(path.stem): read_samples(path, network)
        for path in sorted((run / "samples").glob("*.png"))
        if path.stem.isdecimal()
    }
    for path in CheckpointStore(run / "checkpoints").paths():
        if int(path.stem) not in frames:
            generator, _ = load_generator(run, str(path), device)
            frames[int(path.stem)] = draw_grid(generator, config["seed"])
    if len(frames) < 2:
        return left_out(*SECTION, f"the run holds {len(frames)} sample picture or checkpoint, a strip needs two")
    moments = [sorted(frames)[place] for place in spread(len(frames), FRAMES)]
    places = rows_of_grid(len(frames[moments[0]]) // COLUMNS)
    tiles = np.stack([frames[moment][row * COLUMNS + column] for row, column in places for moment in moments])
    names = [f"{network['class_names'][row]}  z{column}" for row, column in places]
    png = sheet_png(tiles, len(moments), rows=names, headers=[short(moment) for moment in moments])
    caption = f"images seen: {', '.join(f'{moment:,}' for moment in moments)}"
    return Exhibit(*SECTION, LOOK, [Picture("film.png", caption, png)])


def spread(count: int, most: int) -> list[int]:
    """At most `most` of range(count), evenly spread, with the first and the last."""
    return sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})


def rows_of_grid(classes: int) -> Sequence[tuple[int, int]]:
    """The (row, column) of a sample grid that are shown: at most four classes, as many noise vectors as fit."""
    shown = spread(classes, 4)
    return [(row, column) for row in shown for column in range(min(ROWS // len(shown), COLUMNS))]
