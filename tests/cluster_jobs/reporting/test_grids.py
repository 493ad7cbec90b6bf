from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster_jobs.core.errors import UserError
from cluster_jobs.reporting.grids import grid, save_grid


def test_a_grid_fills_row_by_row_on_white() -> None:
    images = np.stack([np.full((1, 2, 2), value, np.uint8) for value in (10, 20, 30)])
    sheet = grid(images, 2, gap=1)
    assert sheet.shape == (5, 5, 3)
    assert sheet[0, 0].tolist() == [10] * 3 and sheet[0, 3].tolist() == [20] * 3 and sheet[3, 0].tolist() == [30] * 3
    assert (sheet[2] == 255).all() and (sheet[:, 2] == 255).all() and (sheet[3:, 3:] == 255).all()


def test_a_colour_grid_keeps_its_channels() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
    assert np.array_equal(grid(image, 1), image[0].transpose(1, 2, 0))


def test_a_saved_grid_is_a_png_with_larger_pixels(tmp_path: Path) -> None:
    images = np.array([[[[0, 255], [255, 0]]]], np.uint8)
    save_grid(tmp_path / "new" / "grid.png", images, 1, scale=3)
    with Image.open(tmp_path / "new" / "grid.png") as picture:
        assert np.array_equal(np.asarray(picture)[..., 0], images[0, 0].repeat(3, 0).repeat(3, 1))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["grid.png"]


def test_a_picture_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "grid.png").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*grid\.png"):
        save_grid(tmp_path / "grid.png", np.zeros((1, 1, 2, 2), np.uint8), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
