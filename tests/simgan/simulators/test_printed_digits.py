import numpy as np
import pytest

from simgan.simulators.printed_digits import FONTS, PrintedDigits, _glyph, draw


def test_an_image_is_a_function_of_seed_split_and_index() -> None:
    first, second = draw(32, 0, "train", 7), draw(32, 0, "train", 7)
    assert np.array_equal(first[0], second[0]) and first[1:] == second[1:]
    others = [draw(32, 1, "train", 7), draw(32, 0, "test", 7), draw(32, 0, "train", 17)]
    assert all(not np.array_equal(first[0], other[0]) and other[1] == 7 for other in others)


def test_an_image_is_crisp_white_on_black_and_inside_the_frame() -> None:
    for index in range(60):
        image, label, _ = draw(32, 0, "train", index)
        assert image.shape == (1, 32, 32) and image.dtype == np.uint8 and label == index % 10
        assert image.max() > 200 and 0.05 < (image > 127).mean() < 0.6
        assert (image < 40).mean() + (image > 215).mean() > 0.65  # edges are thin


@pytest.mark.parametrize("font", FONTS)
def test_every_font_draws_ten_different_digits(font: str) -> None:
    glyphs = [np.asarray(_glyph(str(digit), font, 24, 0).resize((12, 24)), float) for digit in range(10)]
    gaps = [np.abs(a - b).mean() for place, a in enumerate(glyphs) for b in glyphs[:place]]
    assert min(gaps) > 10


def test_the_factors_vary() -> None:
    factors = [draw(32, 0, "train", index)[2] for index in range(200)]
    assert {entry["font"] for entry in factors} == set(FONTS)
    for name in ("height", "stretch", "slant", "thicken", "shift_x", "shift_y"):
        assert len({entry[name] for entry in factors}) > 100


def test_a_source_knows_its_labels_and_changes_its_digest_with_the_seed() -> None:
    source = PrintedDigits(25, 16, 0, "train")
    assert [source.read(index)[1] for index in range(25)] == source.labels.tolist()
    assert source.digest() == PrintedDigits(25, 16, 0, "train").digest() != PrintedDigits(25, 16, 1, "train").digest()
