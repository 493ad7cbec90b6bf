"""Power spectra against waves and noise whose spectra are known."""

import numpy as np
import pytest

from s3gan.metrics.spectrum import artefact_frequencies, azimuthal_average, power_spectrum

SIZE = 32


def as_images(planes):
    """Luminance (N, S, S) in [-1, 1] as uint8 (N, 1, S, S)."""
    return ((planes + 1) * 127.5).round().clip(0, 255).astype(np.uint8)[:, None]


def wave(across, down, amplitude=0.8):
    y, x = np.mgrid[:SIZE, :SIZE]
    return amplitude * np.cos(2 * np.pi * (across * x + down * y) / SIZE)


def test_white_noise_has_a_flat_spectrum_at_its_variance():
    noise = np.random.default_rng(0).normal(0, 0.2, (2000, SIZE, SIZE))
    curve = azimuthal_average(power_spectrum(as_images(noise)))
    np.testing.assert_allclose(curve[1:], 0.04, rtol=0.03)


@pytest.mark.parametrize(("across", "down", "ring"), [(5, 0, 5), (0, 9, 9), (3, 4, 5), (16, 0, 16), (16, 16, None)])
def test_a_cosine_has_all_its_power_at_its_frequency(across, down, ring):
    power = power_spectrum(as_images(wave(across, down)[None]))
    peaks = {(down % SIZE, across % SIZE), (-down % SIZE, -across % SIZE)}
    expected = np.zeros((SIZE, SIZE))
    for place in peaks:
        expected[place] = (0.8 * SIZE) ** 2 / 4 * (4 if len(peaks) == 1 else 1)
    np.testing.assert_allclose(power, expected, atol=expected.max() * 0.01)
    if ring is not None:
        assert azimuthal_average(power)[1:].argmax() + 1 == ring


def test_the_sum_of_the_spectrum_is_that_of_the_squared_luminance():
    images = np.random.default_rng(1).integers(0, 256, (70, 3, SIZE, SIZE)).astype(np.uint8)  # more than one chunk
    luminance = (images / 127.5 - 1).transpose(0, 2, 3, 1) @ [0.299, 0.587, 0.114]
    assert power_spectrum(images).sum() == pytest.approx((luminance**2).sum() / 70)


def test_rings_are_means_over_all_frequencies_of_about_one_length():
    power = np.random.default_rng(2).random((8, 8))
    naive = {}
    for row in range(8):
        for column in range(8):
            y, x = (place - 8 if place >= 4 else place for place in (row, column))
            naive.setdefault(int(np.floor(np.hypot(x, y) + 0.5)), []).append(power[row, column])
    np.testing.assert_allclose(azimuthal_average(power), [np.mean(naive[ring]) for ring in range(6)])


def test_enlarged_noise_shows_at_the_marked_frequencies():
    """Zeros between the pixels of a 16 px map, as in a transposed convolution, copy its spectrum to 16 cycles."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[:16, :16]
    smooth = np.stack([0.5 * np.cos(2 * np.pi * (x + phase) / 16) for phase in random.uniform(0, 16, 200)])
    enlarged = np.zeros((200, SIZE, SIZE))
    enlarged[:, ::2, ::2] = smooth
    power = power_spectrum(as_images(enlarged))
    assert artefact_frequencies(SIZE) == [4, 8, 16] and artefact_frequencies(128) == [4, 8, 16, 32, 64]
    np.testing.assert_allclose(power[0, 15], power[0, 1], rtol=0.02)  # the copy at 16 - 1 of the wave at 1
    np.testing.assert_allclose(power[16, 17], power[0, 1], rtol=0.02)
