"""Images as arrays: PNG encoding, decoding to a fixed size, and what networks read and write."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # loading torch takes seconds, and packing images does not need it
    import torch

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


def eight_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of 16 bits as one of 8 bits, each value v as round(v / 257); any other picture as it is."""
    if not picture.mode.startswith("I"):  # Pillow's I;16 and, in older versions, I
        return picture
    levels = (np.asarray(picture, np.int64) + 128) // 257  # convert("L") would clip the values at 255
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def to_array(picture: Image.Image, size: Size, mode: str) -> np.ndarray:
    """A picture as uint8 (C, height, width): transparency on white, scaled to cover ``size``, centre crop."""
    picture = eight_bits(picture)
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


def to_float(images: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """uint8 images of any shape as float32 in [-1, 1] on ``device``: what networks read."""
    return images.to(device, non_blocking=True).float() / 127.5 - 1


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Float images in [-1, 1], the range of what networks write, as uint8, rounded to the nearest level."""
    return ((images + 1) * 127.5).round().clamp(0, 255).byte()
