"""Shards of pictures that are not square; square ones stay as they were."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import to_array
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Stream, scan
from cluster_jobs.packing.engine import print_table
from cluster_jobs.packing.makers import Repack
from cluster_jobs.packing.sources import decode, folder
from tests.cluster_jobs.tiny import tiny_images, write_tiny_shards

SIZE = 5, 9  # height, width


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 21 grey pictures, 5 pixels high and 9 wide; to be read only."""
    return write_tiny_shards(tmp_path_factory.mktemp("wide"), size=SIZE)


def test_wide_pictures_come_back_with_their_pixels(wide: Path) -> None:
    shards = Shards(wide)
    assert (shards.height, shards.width, shards.shape) == (5, 9, (1, 5, 9))
    assert np.array_equal(np.stack([shards.image(index) for index in range(21)]), tiny_images(size=SIZE))


def test_the_index_holds_one_number_where_square_and_height_and_width_otherwise(tmp_path: Path, wide: Path) -> None:
    assert json.loads((wide / "index.json").read_text())["size"] == [5, 9]
    one, two = write_tiny_shards(tmp_path / "one", size=8), write_tiny_shards(tmp_path / "two", size=(8, 8))
    assert json.loads((one / "index.json").read_text())["size"] == 8
    assert (one / "index.json").read_bytes() == (two / "index.json").read_bytes()
    assert (Shards(one).size, Shards(one).shape) == (8, (1, 8, 8))


def test_the_side_of_pictures_that_are_not_square_is_refused_in_one_line(wide: Path) -> None:
    with pytest.raises(UserError, match=r"5 × 9 pixels \(height × width\), expected square ones") as refused:
        _ = Shards(wide).size
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("size", [0, -3, True, "8", None, [], [8], [8, 0], [8, 2.5], [8, 8, 8], 8.0])
def test_an_index_with_a_senseless_size_is_damaged(tmp_path: Path, size: object) -> None:
    path = write_tiny_shards(tmp_path) / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": size}))
    with pytest.raises(UserError, match="damaged index"):
        Shards(tmp_path)


def test_the_stream_and_a_scan_give_wide_batches(wide: Path) -> None:
    shards, images = Shards(wide), tiny_images(size=SIZE)
    batch = next(Stream(shards, seed=0, batch=4).batches(0))
    assert batch.images.shape == (4, 1, 5, 9)
    assert np.array_equal(batch.images.numpy(), images[batch.indices.numpy()])
    assert np.array_equal(np.concatenate([part.images.numpy() for part in scan(shards, 4)]), images)


def test_the_table_of_a_pack_names_both_sides(wide: Path) -> None:
    console = Console(record=True, width=80, file=io.StringIO())
    print_table(console, {"train": Shards(wide)})
    assert "1 × 5 × 9" in console.export_text()


@pytest.mark.parametrize("turned", [False, True])
def test_a_picture_is_scaled_to_cover_the_shape_and_cut_in_the_middle(turned: bool) -> None:
    # 20 high, 90 wide: covering 10 × 15 scales by a half, and keeps 15 of the 45 columns, the middle ones
    bars = np.repeat(np.array([[0, 255, 0]], np.uint8), 30, 1).repeat(20, 0)
    picture, size = Image.fromarray(bars.T if turned else bars), (15, 10) if turned else (10, 15)
    result = to_array(picture, size, "L")
    assert result.shape == (1, *size)
    assert result.min() > 200


def test_a_wide_target_needs_the_width_covered() -> None:
    # 90 high, 30 wide: covering 10 × 15 scales by a half, so of 45 rows the middle 10 stay
    rows = np.arange(90, dtype=np.uint8)[:, None].repeat(30, 1)
    result = to_array(Image.fromarray(rows), (10, 15), "L")[0]
    assert result.shape == (10, 15) and np.abs(result[:, 7].astype(int) - (2 * np.arange(10) + 34.5)).max() <= 1


def test_a_jpeg_that_is_stored_turned_keeps_enough_pixels() -> None:
    # large enough that Pillow decodes a fraction; stored 400 × 1600, shown 1600 × 400 (exif orientation 6)
    ramp = np.linspace(0, 255, 1600).astype(np.uint8)[None].repeat(400, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "JPEG", quality=95, exif=exif)
    result = decode(buffer.getvalue(), (200, 50), "L")[0]
    assert result.shape == (200, 50)
    assert np.abs(result[:, 25].astype(float) - np.linspace(0.5, 254.5, 200)).max() < 3


def test_a_source_is_packed_in_any_shape(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (3, 10, 18)).astype(np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(photos / f"{number}.png")
    source = folder(photos, SIZE, "auto")["train"]
    maker = Repack(source, tmp_path / "out", SIZE, 2)
    for number in range(maker.shards()):
        assert maker.make(number, frozenset()) == []
    maker.finish(0)
    shards = Shards(tmp_path / "out")
    assert shards.shape == (1, 5, 9)
    assert all(np.array_equal(shards.image(index), source.read(index)[0]) for index in range(3))
