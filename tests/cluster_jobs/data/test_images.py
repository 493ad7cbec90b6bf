import io

import numpy as np
import pytest
import torch
from PIL import Image

from cluster_jobs.data.images import encode_png, to_array, to_float, to_uint8


def decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture)


def test_png_gives_back_the_same_pixels_in_grey_and_colour() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 7)).astype(np.uint8)
    assert np.array_equal(decoded(encode_png(pixels)), pixels.transpose(1, 2, 0))
    assert np.array_equal(decoded(encode_png(pixels[:1])), pixels[0])


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    assert np.array_equal(to_array(Image.fromarray(pixels), 6, "RGB"), pixels.transpose(2, 0, 1))
    assert to_array(Image.fromarray(pixels[..., 0]), 6, "L").shape == (1, 6, 6)
    grey = Image.fromarray(pixels[..., 0])
    assert np.array_equal(to_array(grey, 6, "RGB"), np.stack([pixels[..., 0]] * 3))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(mode: str) -> None:
    layer = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    layer.putpixel((1, 2), (0, 0, 0, 255))
    buffer = io.BytesIO()
    layer.convert(mode).save(buffer, "PNG")
    if mode == "P":
        palette = Image.new("P", (4, 4), 0)
        palette.putpalette([255, 0, 0, 0, 0, 0])
        palette.putpixel((1, 2), 1)
        buffer = io.BytesIO()
        palette.save(buffer, "PNG", transparency=0)
    expected = np.full((3, 4, 4), 255, np.uint8)
    expected[:, 2, 1] = 0
    assert np.array_equal(to_array(Image.open(buffer), 4, "RGB"), expected)


def test_half_transparency_is_mixed_with_white() -> None:
    layer = Image.new("RGBA", (2, 2), (0, 100, 200, 51))  # one fifth opaque
    assert np.abs(to_array(layer, 2, "RGB")[:, 0, 0].astype(int) - [204, 224, 244]).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(30, 10), (10, 30), (11, 10), (3, 9)])
def test_another_shape_is_scaled_by_its_shorter_side_and_cropped_in_the_middle(width: int, height: int) -> None:
    # three bars along the longer side: the middle one is what must remain
    along = np.arange(max(width, height)) * 3 // max(width, height)
    bars = np.array([0, 255, 0], np.uint8)[along]
    pixels = np.tile(bars, (height, 1)) if width > height else np.tile(bars[:, None], (1, width))
    result = to_array(Image.fromarray(pixels), 10, "L")
    assert result.shape == (1, 10, 10)
    assert result[0, 4:6, 4:6].min() > 200
    if max(width, height) >= 3 * min(width, height):
        assert result[0, 2:-2, 2:-2].min() > 200


def test_sixteen_bits_are_rounded_to_eight() -> None:
    values = np.arange(1 << 16).reshape(256, 256)
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint16)).save(buffer, "PNG")
    assert np.array_equal(to_array(Image.open(buffer), 256, "L")[0], np.round(values / 257))


def test_every_level_survives_the_way_to_a_network_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    seen = to_float(levels, "cpu")
    assert seen.dtype == torch.float32 and seen[[0, -1]].tolist() == [-1, 1]
    assert torch.equal(to_uint8(seen), levels)
    assert to_uint8(torch.tensor([-1.5, -1, 0.001, 1, 2])).tolist() == [0, 0, 128, 255, 255]
