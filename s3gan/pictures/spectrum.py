"""Power spectra of real and generated images (Durall et al. 2020, arXiv 2003.01826).

Up-sampling causes artefacts at high frequencies, which are hard to see.
"""

from __future__ import annotations

import numpy as np

from cluster_jobs.reporting.section import Picture, Section
from s3gan.metrics.spectrum import artefact_frequencies, azimuthal_average, power_spectrum
from s3gan.pictures.plot import figure_png, new_figure

SECTION = ("spectrum", "Power spectrum")
LEAST = 1e-12  # power that is drawn, far below that of rounding to 256 levels

LOOK = (
    "Frequencies are in cycles an image; half the image's size is a pattern that alternates from pixel to pixel, and "
    "only diagonals go beyond. The curves should lie on each other and the ratio at 1. A generator whose curve falls "
    "off too early blurs; one that stays above the real images at the right end adds noise or a checkerboard. Every "
    "up-sampling from a map of m pixels copies the spectrum to multiples of m: bumps of the ratio at the dotted lines, "
    "and bright dots or crosses there in the second picture, are its artefacts. Real images that were themselves "
    "enlarged lack high frequencies, and compression adds marks at multiples of an eighth."
)


def section(samples: np.ndarray, real: np.ndarray, described: str) -> Section:
    """The spectra of uint8 images (N, C, S, S), generated and real; `described` says which real images."""
    powers = {"real": power_spectrum(real), "generated": power_spectrum(samples)}
    curves = {name: np.maximum(azimuthal_average(power), LEAST) for name, power in powers.items()}
    marks = artefact_frequencies(samples.shape[-1])
    edges = [1, *marks, len(curves["real"])]
    rows = []
    for low, high in zip(edges, edges[1:], strict=False):
        means = [float(curve[low:high].mean()) for curve in curves.values()]
        rows.append([f"{low} to {high - 1}", *means, means[1] / means[0]])
    pictures = [
        Picture(
            "spectrum.png",
            "mean power on rings of one frequency, and generated over real; dotted: " + ", ".join(map(str, marks)),
            _draw_curves(curves, marks),
        ),
        Picture(
            "spectrum_2d.png",
            "log power of all frequencies, the mean image in the middle, and generated over real",
            _draw_planes(powers, marks),
        ),
    ]
    text = f"{LOOK}\n\n{len(samples):,} generated images, {len(real):,} of the {described}."
    return Section(*SECTION, text, pictures, ["cycles an image", "real", "generated", "ratio"], rows)


def _draw_curves(curves: dict[str, np.ndarray], marks: list[int]) -> bytes:
    figure = new_figure(8, 4.8)
    top, bottom = figure.subplots(2, sharex=True, height_ratios=[2, 1])
    cycles = np.arange(1, len(curves["real"]))
    for name, curve in curves.items():
        top.plot(cycles, curve[1:], label=name)
    bottom.plot(cycles, curves["generated"][1:] / curves["real"][1:], color="black")
    bottom.axhline(1, color="grey", linewidth=0.8)
    for axes in (top, bottom):
        axes.set_yscale("log")
        for mark in marks:
            axes.axvline(mark, color="grey", linestyle=":", linewidth=1)
    top.set_ylabel("power")
    top.legend(frameon=False)
    bottom.set_ylabel("generated / real")
    bottom.yaxis.set_major_formatter("{x:g}")
    bottom.yaxis.set_minor_formatter("{x:g}")
    bottom.set_xlabel("cycles an image")
    return figure_png(figure)


def _draw_planes(powers: dict[str, np.ndarray], marks: list[int]) -> bytes:
    logs = {name: np.log10(np.fft.fftshift(np.maximum(power, LEAST))) for name, power in powers.items()}
    low, high = min(log.min() for log in logs.values()), max(log.max() for log in logs.values())
    size = len(logs["real"])
    extent = (-size / 2 - 0.5, size / 2 - 0.5, size / 2 - 0.5, -size / 2 - 0.5)
    figure = new_figure(11, 3.6)
    axes = figure.subplots(1, 3)
    for panel, (name, log) in zip(axes, logs.items(), strict=False):
        panel.set_title(name, fontsize="medium")
        shown = panel.imshow(log, extent=extent, vmin=low, vmax=high, cmap="magma", interpolation="nearest")
    figure.colorbar(shown, ax=list(axes[:2]), label="log10 power", shrink=0.8)
    ratio = logs["generated"] - logs["real"]
    most = max(float(np.abs(ratio).max()), 1e-3)
    axes[2].set_title("generated / real", fontsize="medium")
    shown = axes[2].imshow(ratio, extent=extent, vmin=-most, vmax=most, cmap="RdBu_r", interpolation="nearest")
    figure.colorbar(shown, ax=axes[2], label="log10 ratio", shrink=0.8)
    for panel in axes:
        ticks = [-marks[-1], *(sign * mark for mark in marks[-2:-1] for sign in (-1, 1)), 0]
        panel.set_xticks(sorted(ticks))
        panel.set_yticks(sorted(ticks))
    return figure_png(figure)
