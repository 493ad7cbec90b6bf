"""The report's section on power spectra."""

import numpy as np

from s3gan.pictures.spectrum import section
from tests.s3gan.metrics.test_spectrum import SIZE, as_images


def test_the_table_has_the_ratio_in_the_bands_between_the_marks():
    random = np.random.default_rng(4)
    real = as_images(random.normal(0, 0.1, (300, SIZE, SIZE)))
    generated = as_images(random.normal(0, 0.2, (200, SIZE, SIZE)) + 0.1)
    made = section(generated, real, "real images")
    assert [row[0] for row in made.rows] == ["1 to 3", "4 to 7", "8 to 15", "16 to 22"]
    np.testing.assert_allclose([row[3] for row in made.rows], 4, rtol=0.1)
    assert [picture.file for picture in made.pictures] == ["spectrum.png", "spectrum_2d.png"]


def test_images_without_any_variation_still_have_a_picture():
    flat = np.full((3, 1, SIZE, SIZE), 7, np.uint8)
    assert all(picture.png.startswith(b"\x89PNG") for picture in section(flat, flat, "real images").pictures)
