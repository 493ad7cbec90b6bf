"""Printed digits: 0 to 9 in the fonts that matplotlib ships, crisp, with varied size, slant, thickness and position."""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cluster_jobs.core.seeds import derive_seed

CLASSES = [str(digit) for digit in range(10)]

# The rest of matplotlib's fonts have no digits (the STIX sizes, STIXNonUni, DejaVu Display, cmex, cmsy, LastResort) or
# old-style ones that sink below the line (cmmi10).
FONTS = (
    *(
        f"DejaVu{family}{style}"
        for family in ("Sans", "SansMono")
        for style in ("", "-Bold", "-Oblique", "-BoldOblique")
    ),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
)
SUPERSAMPLING = 4  # drawn larger, then averaged down: smooth edges wherever the glyph lies

# Ranges of the factors; lengths are fractions of the image side. Digits fill the frame, as in cropped scans: a refiner
# can change how a stroke looks, but self-regularisation keeps it from moving or scaling a whole digit.
HEIGHT = (0.82, 1.0)
STRETCH = (0.75, 1.15)  # width over the font's own width
SLANT = (-0.1, 0.3)  # tangent of the angle, to the right of upright
THICKEN = (0.0, 0.035)  # added on either side of every stroke
SHIFT = (-0.04, 0.04)  # of the centre, in both directions


@dataclass
class PrintedDigits:
    """A source (see ``cluster_jobs.packing``) of the first ``count`` images of a split."""

    count: int
    size: int
    seed: int
    split: str
    mode: str = "L"

    def __post_init__(self) -> None:
        self.classes = CLASSES
        self.labels = (np.arange(self.count) % len(CLASSES)).astype(np.int32)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{self.split}[{index}]"

    def read(self, index: int) -> tuple[np.ndarray, int, dict[str, Any]]:
        """See :func:`draw`."""
        return draw(self.size, self.seed, self.split, index)

    def paths(self, index: int) -> tuple[()]:
        return ()

    def digest(self) -> str:
        """Digest of the first images: it changes with the simulator, the fonts and the libraries that draw them."""
        images = [self.read(index)[0].tobytes() for index in range(min(self.count, 100))]
        return hashlib.sha256(b"".join(images)).hexdigest()


def draw(size: int, seed: int, split: str, index: int) -> tuple[np.ndarray, int, dict[str, Any]]:
    """Draws sample ``index`` of a split: a pure function of its arguments.

    Returns:
        (1, size, size) uint8, white on black; the digit (``index % 10``: the classes are balanced); the factors drawn.
    """
    random = np.random.default_rng(derive_seed("printed_digits", seed, split, index))
    label = index % len(CLASSES)
    factors: dict[str, Any] = {
        "font": FONTS[int(random.integers(len(FONTS)))],
        "height": random.uniform(*HEIGHT),
        "stretch": random.uniform(*STRETCH),
        "slant": random.uniform(*SLANT),
        "thicken": random.uniform(*THICKEN),
        "shift_x": random.uniform(*SHIFT),
        "shift_y": random.uniform(*SHIFT),
    }
    factors = {name: round(value, 4) if isinstance(value, float) else value for name, value in factors.items()}
    return _render(CLASSES[label], size, factors)[None], label, factors


def _render(text: str, size: int, factors: dict[str, Any]) -> np.ndarray:
    side = size * SUPERSAMPLING
    glyph = _glyph(text, factors["font"], side, round(factors["thicken"] * side))
    scale = factors["height"] * side / glyph.height
    stretch = scale * min(factors["stretch"], 0.9 * side / (scale * glyph.width))
    centre_x, centre_y = (0.5 + factors["shift_x"]) * side, (0.5 + factors["shift_y"]) * side
    # The affine map takes a pixel of the canvas to its place in the glyph.
    shear = factors["slant"] / stretch
    inverse = (
        *(1 / stretch, shear, glyph.width / 2 - centre_x / stretch - shear * centre_y),
        *(0.0, 1 / scale, glyph.height / 2 - centre_y / scale),
    )
    canvas = glyph.transform((side, side), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)
    return np.asarray(canvas.reduce(SUPERSAMPLING))


@functools.lru_cache(maxsize=4096)
def _glyph(text: str, font: str, height: int, stroke: int) -> Image.Image:
    """One glyph cut out at its bounding box, about ``height`` pixels high."""
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    loaded = ImageFont.truetype(str(file), height)
    left, top, right, bottom = (round(edge) for edge in loaded.getbbox(text, stroke_width=stroke))
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=loaded, stroke_width=stroke)
    return image.crop(image.getbbox())
