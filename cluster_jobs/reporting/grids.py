"""Grids of images, as an array or a PNG file."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from cluster_jobs.core.files import write_atomically

GAP = 2  # px between the images of a grid


def grid(images: np.ndarray, columns: int, gap: int = GAP) -> np.ndarray:
    """Arranges uint8 images (N, C, H, W) row by row on white; returns uint8 (rows, columns, 3)."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for cell, image in enumerate(images):
        top, left = cell // columns * (height + gap), cell % columns * (width + gap)
        sheet[top : top + height, left : left + width] = np.broadcast_to(image.transpose(1, 2, 0), (height, width, 3))
    return sheet


def save_grid(path: Path, images: np.ndarray, columns: int, *, scale: int = 1) -> None:
    """Writes a grid of uint8 images (N, C, H, W) as PNG, atomically, each pixel ``scale`` times as large."""
    sheet = Image.fromarray(grid(images, columns))
    if scale > 1:
        sheet = sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
