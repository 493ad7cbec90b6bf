"""The random factors of a drawn eye: the range of each factor in both domains, and the draw.

Lengths are in eyeball radii unless stated, angles in degrees, tones in [0, 1]. A factor is drawn from one uniform
number of the image's own generator, so the factors of an image do not depend on its neighbours.
"""

from typing import Any

import numpy as np

from cluster_jobs.core.seeds import derive_seed

Factors = dict[str, np.ndarray]  # each (N,) float32
Ranges = dict[str, tuple[float, float]]

DECIMALS = 4  # factors are rounded before they are used, so that an annotation states exactly what was drawn

# The geometry of both domains. The gaze has similar ranges, not the same distribution: uniform in the simulator,
# triangular around the middle of other ranges in front of the camera.
EYE: Ranges = {
    "eye_pitch": (-20, 14),  # of the eye in the head, up is positive
    "eye_yaw": (-22, 22),
    "head_pitch": (-10, 10),
    "head_yaw": (-15, 15),
    "roll": (-5, 5),  # of the camera around its axis
    "scale": (0.26, 0.31),  # eyeball radius over the width of the image
    "shift_x": (-0.03, 0.03),  # of the eyeball's centre from the image's, in image widths
    "shift_y": (-0.03, 0.03),
    "iris_radius": (0.46, 0.51),
    "pupil_radius": (0.3, 0.5),  # over the iris
}
SIMULATOR: Ranges = EYE | {
    "upper_lid": (0.42, 0.62),  # height of the upper lid's edge above the eyeball's centre at a level gaze
    "lower_lid": (0.30, 0.44),
    "corner": (1.10, 1.25),  # half the distance of the corners
    "lid_skew": (-0.08, 0.08),  # highest point of the lid's curve to the side
    "lid_round": (0.75, 0.95),  # exponent of the curve: small is boxy, 1 is a parabola
    "lid_tilt": (-0.06, 0.06),  # slope of the line through the corners
    "crease_gap": (0.14, 0.24),
    "crease": (0.15, 0.3),  # how dark
    "brow": (0.05, 0.2),  # shadow of the brow at the top
    "nose": (0.0, 0.15),  # shadow beside the inner corner, which is on the right
    "lashes": (0.3, 0.6),  # how dark
    "lash_length": (0.06, 0.12),
    "lash_count": (11, 15),
    "skin": (0.45, 0.78),
    "sclera": (0.82, 0.95),
    "iris": (0.2, 0.5),
    "iris_texture": (0.05, 0.15),
    "limbus": (0.3, 0.5),  # how much darker the iris is at its edge
    "light_x": (-0.5, 0.5),  # direction of the light
    "light_y": (0.0, 0.7),
    "ambient": (0.5, 0.75),
    "lid_shadow": (0.05, 0.15),  # of the upper lid on the eyeball
    "highlight": (0.7, 1.0),
    "highlight_size": (0.05, 0.08),
}
CAMERA: Ranges = (
    SIMULATOR
    | {
        "eye_pitch": (-22, 12),
        "eye_yaw": (-24, 24),
        "head_pitch": (-14, 12),
        "head_yaw": (-18, 18),
        "upper_lid": (0.36, 0.54),
        "lower_lid": (0.26, 0.42),
        "corner": (1.02, 1.22),
        "lid_round": (0.55, 0.8),
        "crease_gap": (0.1, 0.34),
        "crease": (0.05, 0.45),
        "brow": (0.1, 0.45),
        "nose": (0.05, 0.3),
        "lashes": (0.4, 0.9),
        "lash_length": (0.08, 0.24),
        "lash_count": (16, 26),
        "skin": (0.36, 0.72),
        "sclera": (0.5, 0.78),
        "iris": (0.08, 0.32),
        "iris_texture": (0.1, 0.35),
        "limbus": (0.05, 0.3),
        "light_x": (-0.7, 0.7),
        "light_y": (0.1, 1.0),
        "ambient": (0.35, 0.65),
        "lid_shadow": (0.25, 0.6),
        "highlight": (0.0, 0.7),
        "highlight_size": (0.06, 0.14),
    }
    | {  # only a camera sees these
        "veins": (0.0, 0.25),
        "skin_texture": (0.015, 0.05),  # standard deviation of the photographs' detail on the skin
        "gradient": (-0.2, 0.2),  # of the light from left to right
        "shadow": (0.0, 0.2),  # depth of a cast shadow
        "shadow_angle": (0, 360),
        "shadow_place": (0.1, 0.9),  # of its edge from the eyeball's centre
        "exposure": (0.38, 0.58),  # the mean tone that the automatic exposure reaches
        "gamma": (0.8, 1.25),
        "vignette": (0.0, 0.2),  # darkening at the corners
        "blur": (0.5, 1.1),  # standard deviation in pixels at 55 pixels width
        "shot_noise": (0.01, 0.035),  # standard deviation at full white
        "read_noise": (0.005, 0.02),
        "jpeg": (55, 92),  # quality
    }
)
TRIANGULAR = ("eye_pitch", "eye_yaw", "head_pitch", "head_yaw")  # in front of the camera


def draw_factors(domain: str, generators: list[np.random.Generator]) -> Factors:
    """The factors of as many images as there are generators, each (N,) float32."""
    ranges = SIMULATOR if domain == "simulator" else CAMERA
    uniform = np.stack([generator.random(len(ranges)) for generator in generators], 1)
    factors: Factors = {}
    for (name, (low, high)), share in zip(ranges.items(), uniform, strict=True):
        if domain == "camera" and name in TRIANGULAR:
            share = np.where(share < 0.5, np.sqrt(share / 2), 1 - np.sqrt((1 - share) / 2))
        factors[name] = np.round(low + (high - low) * share, DECIMALS).astype(np.float32)
    return factors


def generators(domain: str, seed: int, split: str, indices: range) -> list[np.random.Generator]:
    """One random generator per image, seeded by (domain, seed, split, index)."""
    return [np.random.default_rng(derive_seed("eyes", domain, seed, split, index)) for index in indices]


def as_annotation(factors: Factors, index: int) -> dict[str, Any]:
    """The factors of one image as JSON numbers."""
    return {name: round(float(values[index]), DECIMALS) for name, values in factors.items()}
