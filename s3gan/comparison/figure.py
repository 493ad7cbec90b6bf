"""The figure of a study: scores against the share of labels, after Figure 1 of Lucic et al. 2019 (arXiv 1903.02271).

A curve is a method over the labels that it saw; horizontal lines are methods that see none of the labels, or all.
"""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s3gan.comparison.measures import CAS
from s3gan.comparison.ratios import Comparison
from s3gan.comparison.study import ALL_LABELS, WITH_LABELS, method_and_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = ("fd", "intra", CAS)  # kinds of measures, one panel each
COLOURS = dict(zip(WITH_LABELS, ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"), strict=True))
MARKERS = dict(zip(WITH_LABELS, "osD^v", strict=True))
LINES = {  # a hue for what images are conditioned on, a dash for whether there is a rotation loss
    "single_label": ("#6b6b6b", "--"),
    "single_label_ss": ("#6b6b6b", "-."),
    "random_label": ("#7b4173", "--"),
    "clustering": ("#8c6d31", "--"),
    "clustering_ss": ("#8c6d31", "-."),
    "ssgan": ("#7b4173", "-."),
    "self_conditioned": ("#3b6e4f", "--"),
    "self_conditioned_ss": ("#3b6e4f", "-."),
    ALL_LABELS: ("black", "-"),
}
DODGE = 0.03  # neighbouring curves stand apart by this share, so that their error bars can be told apart


@dataclass(frozen=True)
class Point:
    percent: int
    mean: float
    sd: float


def panels(comparison: Comparison) -> list[str]:
    """The measures that have a panel: of each kind the first that the reference has, or the first of all."""
    first: dict[str, str] = {}  # by kind
    for name, measure in comparison.study.measures.items():
        if comparison.reference in comparison.cells[name]:
            first.setdefault(measure.kind, name)
    return [first[kind] for kind in PANELS if kind in first] or list(first.values())[:1]


def curves(comparison: Comparison, name: str) -> dict[str, list[Point]]:
    """The points of every method that has any, by method; methods without labels have one point at 0 %."""
    points: dict[str, list[Point]] = {}
    for row, cell in comparison.cells[name].items():
        method, percent = method_and_percent(row)
        if percent is not None:
            points.setdefault(method, []).append(Point(percent, cell.mean, cell.sd or 0.0))
    return {method: sorted(line, key=lambda point: point.percent) for method, line in points.items()}


def draw(comparison: Comparison) -> bytes:
    """The figure as a PNG."""
    from matplotlib.figure import Figure  # imports slowly, and only this draws

    names = panels(comparison)
    figure = Figure(figsize=(4.6 * len(names), 4.9), layout="constrained")
    entries: dict[str, Any] = {}  # of the legend, one for all panels
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _draw_panel(axes, comparison, name)
        handles, labels = axes.get_legend_handles_labels()
        entries |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in entries}
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=min(6, 3 * len(names)), fontsize=8
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _draw_panel(axes: "Axes", comparison: Comparison, name: str) -> None:
    measure, lines = comparison.study.measures[name], curves(comparison, name)
    if name in comparison.study.real:
        axes.axhline(comparison.study.real[name], color="#b0b0b0", linewidth=0.8, label="real images")
    for method, (colour, dash) in LINES.items():
        for point in lines.get(method, []):
            axes.axhline(point.mean, linestyle=dash, color=colour, linewidth=1.3, label=method)
            axes.axhspan(point.mean - point.sd, point.mean + point.sd, color=colour, alpha=0.08, linewidth=0)
    if measure.kind == CAS and comparison.study.budgets:
        percents = sorted(comparison.study.budgets)
        values = [comparison.study.budgets[percent] for percent in percents]
        axes.plot(percents, values, ":x", color="black", linewidth=1, label="labelled images alone, no GAN")
    for number, method in enumerate(WITH_LABELS):
        points = lines.get(method, [])
        if points:
            aside = 1 + DODGE * (number - len(WITH_LABELS) // 2)
            axes.errorbar(
                [point.percent * aside for point in points],
                [point.mean for point in points],
                [point.sd for point in points],
                color=COLOURS[method],
                marker=MARKERS[method],
                markersize=5,
                linewidth=1.6,
                capsize=3,
                label=method,
            )
    percents = sorted({point.percent for points in lines.values() for point in points} - {0, 100}) or [10]
    axes.set_xscale("log")
    axes.set_xlim(min(percents) * 0.8, max(percents) * 1.25)
    axes.set_xticks(percents, [f"{percent} %" for percent in percents])
    axes.minorticks_off()
    axes.set_xlabel("labels seen")
    axes.set_title(f"{measure.title.partition(' of a ')[0]}\n{name}, {measure.better.value}", fontsize=9)
    if measure.better.name == "lower":
        axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
