"""Figures of the gaze task as PNGs."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cumulative(errors: Mapping[str, np.ndarray], at: float) -> bytes:
    """Share of pictures over the error in degrees, a curve for each row; a line at ``at`` degrees."""
    from matplotlib.figure import Figure  # imports slowly, and only this draws

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in errors.items():
        axes.plot(np.sort(values), np.arange(1, len(values) + 1) / len(values) * 100, label=name)
    axes.axvline(at, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 30), ylim=(0, 100), xlabel="gaze error below (degrees)", ylabel="% of real test images")
    axes.legend()
    return _png(figure)


def scatter(before: np.ndarray, after: np.ndarray) -> bytes:
    """Centres (N, 2) in pixels after refining over those before, x and y."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    for axis, axes in enumerate(figure.subplots(1, 2)):
        low, high = float(min(before[:, axis].min(), after[:, axis].min())), float(before[:, axis].max())
        axes.plot([low, high], [low, high], color="grey", linewidth=0.8)
        axes.plot(before[:, axis], after[:, axis], ".", markersize=3)
        axes.set(xlabel=f"{'xy'[axis]} of the iris, simulated (px)", ylabel="refined (px)", aspect="equal")
    return _png(figure)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
