"""The sample sheet of a refiner in training: simulated, refined and real images in one PNG."""

from pathlib import Path

import numpy as np
import torch

from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import scan
from cluster_jobs.reporting.grids import save_grid
from simgan.networks.refiner import Refiner
from simgan.networks.trained_refiner import refine_images

SHEET_ROWS, SHEET_PAIRS = 10, 4  # pairs of simulated and refined, then as many real ones


def save_sheet(
    path: Path, refiner: Refiner, synthetic: Shards, real: Shards, device: torch.device, damaged: str
) -> None:
    """Writes pairs of simulated and refined images on the left and real ones on the right, the same ones every time.

    Args:
        damaged: what to do with an image that cannot be decoded, as in the stream.
    """
    simulated, real_images = (_evenly_spaced(shards, damaged) for shards in (synthetic, real))
    refined = refine_images(refiner, simulated, device)
    rows = np.stack([simulated, refined], 1).reshape(SHEET_ROWS, 2 * SHEET_PAIRS, *simulated.shape[1:])
    rows = np.concatenate([rows, real_images.reshape(SHEET_ROWS, SHEET_PAIRS, *simulated.shape[1:])], 1)
    sheet = rows.reshape(-1, *simulated.shape[1:])
    save_grid(path, sheet, rows.shape[1], scale=2 if synthetic.width < 64 else 1)


def _evenly_spaced(shards: Shards, damaged: str) -> np.ndarray:
    """Images from all over the shards: uint8 (SHEET_ROWS * SHEET_PAIRS, C, H, W), some of them twice in a small set."""
    indices = np.linspace(0, len(shards) - 1, SHEET_ROWS * SHEET_PAIRS).astype(np.int64)
    images: np.ndarray = next(scan(shards, len(indices), indices=indices, damaged=damaged)).images.numpy()
    return images
