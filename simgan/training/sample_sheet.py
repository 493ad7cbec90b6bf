"""The sample picture of a refiner in training."""

from pathlib import Path

import numpy as np
import torch

from cluster_jobs.data.shards import Shards
from cluster_jobs.reporting.grids import save_grid
from simgan.networks.refiner import Refiner
from simgan.networks.trained_refiner import refine_images

SHEET_ROWS, SHEET_PAIRS = 10, 4  # pairs of simulated and refined, then as many real ones


def save_sheet(path: Path, refiner: Refiner, synthetic: Shards, real: Shards, device: torch.device) -> None:
    """Pairs of simulated and refined on the left, real images beside them: the same ones every time."""
    count = SHEET_ROWS * SHEET_PAIRS
    before, beside = (
        np.stack([shards.image(int(index)) for index in np.linspace(0, len(shards) - 1, count)])
        for shards in (synthetic, real)
    )
    after = refine_images(refiner, before, device)
    rows = np.stack([before, after], 1).reshape(SHEET_ROWS, 2 * SHEET_PAIRS, *before.shape[1:])
    rows = np.concatenate([rows, beside.reshape(SHEET_ROWS, SHEET_PAIRS, *before.shape[1:])], 1)
    sheet = rows.reshape(-1, *before.shape[1:])
    save_grid(path, sheet, rows.shape[1], scale=2 if synthetic.width < 64 else 1)
