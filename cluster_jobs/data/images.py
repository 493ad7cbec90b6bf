"""Pictures as arrays: encode, decode to a fixed size, arrange in a grid, save."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from cluster_jobs.core.files import write_atomically

GAP = 2  # px between the images of a grid

Size = int | tuple[int, int]  # pixels: the side of square pictures, or (height, width)


def height_and_width(size: Size) -> tuple[int, int]:
    """(height, width) in pixels of pictures of ``size``."""
    return (size, size) if isinstance(size, int) else size


def encode_png(image: np.ndarray) -> bytes:
    """Encodes a uint8 array of shape (C, H, W), C = 1 or 3, as PNG."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image[0] if image.shape[0] == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def shape_text(shape: Iterable[int]) -> str:
    """Sides as people write them: ``1 × 35 × 55``."""
    return " × ".join(map(str, shape))


def to_array(picture: Image.Image, size: Size, mode: str) -> np.ndarray:
    """A picture as uint8 (C, height, width): transparency on white, scaled to cover ``size``, centre crop."""
    if picture.mode.startswith("I;16"):  # Pillow would clip 16 bits, not scale them
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    picture = picture.convert(mode)
    height, width = height_and_width(size)
    if picture.size != (width, height):
        scale = max(width / picture.width, height / picture.height)
        covering = max(width, round(picture.width * scale)), max(height, round(picture.height * scale))
        picture = picture.resize(covering, Image.Resampling.LANCZOS)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    array = np.asarray(picture, np.uint8)
    return array[None] if mode == "L" else np.ascontiguousarray(array.transpose(2, 0, 1))


def grid(images: np.ndarray, columns: int, gap: int = GAP) -> np.ndarray:
    """Arranges uint8 images (N, C, H, W) row by row on white; returns uint8 (rows, columns, 3)."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
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
