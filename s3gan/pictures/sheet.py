"""A grid of images as PNG, with names next to its rows and above its columns."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cluster_jobs.reporting.grids import GAP, grid

SMALL, WIDE = 64, 2048  # px: smaller images are doubled, wider sheets halved until they fit
TEXT, MARGIN, LONGEST = 12, 8, 28  # px, px, characters


def sheet_png(images: np.ndarray, columns: int, *, rows: Sequence[str] = (), headers: Sequence[str] = ()) -> bytes:
    """A PNG of uint8 images (N, C, H, W), `columns` per row.

    Args:
        rows: a name for each row.
        headers: a name for each column.
    """
    tiles = _fit(images, columns)
    body = Image.fromarray(grid(tiles, columns))
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), TEXT)
    names = [name if len(name) <= LONGEST else name[: LONGEST - 1] + "…" for name in rows]
    left = max((int(font.getlength(name)) + MARGIN for name in names), default=0)
    top = TEXT + MARGIN if headers else 0
    sheet = Image.new("RGB", (left + body.width, top + body.height), "white")
    sheet.paste(body, (left, top))
    draw, side = ImageDraw.Draw(sheet), tiles.shape[-1] + GAP
    for number, name in enumerate(names):
        draw.text((left - MARGIN // 2, top + number * side + side // 2), name, "black", font, anchor="rm")
    for number, name in enumerate(headers):
        draw.text((left + number * side + side // 2, top // 2), name, "black", font, anchor="mm")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _fit(images: np.ndarray, columns: int) -> np.ndarray:
    """Small images with every pixel doubled; large ones shrunk by means of 2x2 pixels until a row fits."""
    if images.shape[-1] < SMALL:
        return images.repeat(2, -1).repeat(2, -2)
    while images.shape[-1] * columns > WIDE and images.shape[-1] % 2 == 0:
        count, channels, height, width = images.shape
        squares = images.reshape(count, channels, height // 2, 2, width // 2, 2)
        images = squares.mean((3, 5)).round().astype(np.uint8)
    return images
