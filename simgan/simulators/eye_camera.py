"""The camera model of eyes: skin detail of real photographs, light, lens, sensor noise, compression.

The photographs are the two that scikit-learn ships (china.jpg, flower.jpg); only their fine detail is used.
"""

import functools
import io

import numpy as np
from PIL import Image

from simgan.simulators.eye_factors import CAMERA, Factors
from simgan.simulators.eye_painting import Painting

DETAIL = 1.8  # pixels of the photograph: coarser detail is removed
CROPS = 2  # crops that are summed for one skin, so that no petal or roof is recognisable
REFERENCE_WIDTH = 55  # pixels: the width at which the blur is stated
EVEN = 6  # pixels of the photograph over which its detail is evened out
KERNEL = 2.5  # standard deviations of the blur's kernel on either side
EXPOSURE_GAIN = (0.5, 3.0)  # limits of the automatic exposure


def photograph(painting: Painting, factors: Factors, generators: list[np.random.Generator]) -> np.ndarray:
    """Renders the images, (N, H, W) uint8. ``generators``: one per image, after the draw of its factors."""
    per = {name: values[:, None, None].astype(np.float32) for name, values in factors.items()}
    tone = painting.tone.copy()
    shape = tone.shape[1:]
    detail = np.stack([_detail(shape, generator) for generator in generators])
    tone += (1 - painting.opening) * per["skin_texture"] * detail
    tone -= painting.opening * per["veins"] * _veins(painting) * tone
    tone *= _light(per, painting)
    larger = shape[1] / REFERENCE_WIDTH
    tone = _blurred(tone, factors["blur"] * larger, int(np.ceil(KERNEL * CAMERA["blur"][1] * larger)))
    gain = per["exposure"] / np.maximum(tone.mean((1, 2), keepdims=True), 0.05)
    tone *= np.clip(gain, *EXPOSURE_GAIN)
    tone *= 1 - per["vignette"] * _corner_distance(shape)
    noise = np.stack([generator.standard_normal(shape, np.float32) for generator in generators])
    tone = np.clip(tone, 0, 1)
    tone += noise * np.sqrt(np.square(per["read_noise"]) + np.square(per["shot_noise"]) * tone)
    encoded = np.power(np.clip(tone, 0, 1), per["gamma"])
    pixels = np.rint(encoded * 255).astype(np.uint8)
    return np.stack([_jpeg(image, int(quality)) for image, quality in zip(pixels, factors["jpeg"], strict=True)])


@functools.cache
def _photographs() -> list[np.ndarray]:
    """The photographs' detail: zero mean, unit standard deviation, with locally normalised contrast."""
    from scipy.ndimage import gaussian_filter  # imports take seconds, and domain=simulator needs neither
    from sklearn.datasets import load_sample_images

    details = []
    for photo in load_sample_images().images:
        grey = photo.astype(np.float32).mean(-1)
        fine = gaussian_filter(grey, 0.6) - gaussian_filter(grey, DETAIL)
        local = np.sqrt(gaussian_filter(np.square(fine), 4 * DETAIL))  # local contrast: a petal's edge is no wrinkle
        fine = np.tanh(fine / (local + 0.2 * fine.std()) / 1.5)
        details.append(((fine - fine.mean()) / fine.std()).astype(np.float32))
    return details


def _detail(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Crops at random places of random photographs, each mirrored or not; beyond an edge the photograph repeats."""
    photos, total = _photographs(), np.zeros(shape, np.float32)
    for photo, top, left, mirrored in generator.integers((len(photos), 2**16, 2**16, 2), size=(CROPS, 4)).tolist():
        rows = (top + np.arange(shape[0])) % photos[photo].shape[0]
        columns = (left + np.arange(shape[1])) % photos[photo].shape[1]
        total += photos[photo][np.ix_(rows, columns[::-1] if mirrored else columns)]
    return total / np.float32(np.sqrt(CROPS))


def _veins(painting: Painting) -> np.ndarray:
    """Thin winding lines that fade towards the middle of the eyeball."""
    winding = np.sin(9 * painting.up + 2.5 * np.sin(4 * painting.right) + 3 * painting.right * painting.up)
    return np.exp(-np.square(winding / 0.25)) * np.clip(np.abs(painting.right) - 0.3, 0, 1)


def _light(per: Factors, painting: Painting) -> np.ndarray:
    """A gradient from left to right, and a soft cast shadow beyond a line."""
    angle = np.radians(per["shadow_angle"])
    beyond = painting.right * np.cos(angle) + painting.up * np.sin(angle) - per["shadow_place"]
    return (1 + per["gradient"] * np.clip(painting.right / 1.7, -1, 1)) * (
        1 - per["shadow"] * np.clip(0.5 + beyond / 0.4, 0, 1)
    )


def _corner_distance(shape: tuple[int, ...]) -> np.ndarray:
    """The squared distance from the middle, 1 in the corners."""
    y, x = (np.linspace(-1, 1, length, dtype=np.float32) for length in shape)
    return (np.square(y)[:, None] + np.square(x)[None, :]) / 2


def _blurred(tone: np.ndarray, sigma: np.ndarray, taps: int) -> np.ndarray:
    """Each image convolved with its own Gaussian of ``taps`` pixels on either side, edges repeated."""
    offsets = np.arange(-taps, taps + 1, dtype=np.float32)
    kernel = np.exp(-np.square(offsets[None] / sigma[:, None]) / 2).astype(np.float32)
    kernel /= kernel.sum(1, keepdims=True)
    for axis in (1, 2):
        pad = [(taps, taps) if dimension == axis else (0, 0) for dimension in range(3)]
        padded, length = np.pad(tone, pad, mode="edge"), tone.shape[axis]
        tone = np.zeros_like(tone)
        for tap in range(2 * taps + 1):
            part = padded[:, tap : tap + length] if axis == 1 else padded[:, :, tap : tap + length]
            tone += kernel[:, tap, None, None] * part
    return tone


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
