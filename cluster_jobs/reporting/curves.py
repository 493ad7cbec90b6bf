"""Curves of metrics over training, as SVG text that the page's style sheet colours."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

MAX_POINTS = 300
WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 34
LOGARITHMIC_RATIO = 500.0  # of the largest to the smallest value, all positive
TOGETHER_RATIO = 30.0  # of the largest values of two series in one picture
MAX_SERIES = 6  # the style sheet has as many colours

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    key: str
    points: list[Point]  # (images seen, value), finite, in the order of images seen

    @property
    def prefix(self) -> str:
        return self.key.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def largest(self) -> float:
        return max(abs(value) for _, value in self.points)

    @property
    def constant(self) -> bool:
        return len({value for _, value in self.points}) == 1


def read_series(lines: Sequence[dict[str, float]]) -> dict[str, Series]:
    """The keys of a metrics.jsonl as series. Values that are not finite are left out: a curve has a gap there."""
    series: dict[str, Series] = {}
    for line in lines:
        for key, value in line.items():
            if key != "nimg" and isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(key, Series(key, [])).points.append((float(line["nimg"]), float(value)))
    return series


def group(series: Iterable[Series]) -> list[list[Series]]:
    """The series that share a picture: the same text before the "/", and values of about the same size."""
    groups: dict[str, list[Series]] = {}
    for member in series:
        groups.setdefault(member.prefix, []).append(member)
    charts = []
    for members in groups.values():
        members.sort(key=lambda member: -member.largest)  # stable: equals stay in their order
        while members:
            near = [member for member in members if member.largest * TOGETHER_RATIO >= members[0].largest]
            charts.append(near[:MAX_SERIES])
            members = [member for member in members if member not in charts[-1]]
    return charts


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most ``most`` points: means over equally long stretches."""
    if len(points) <= most:
        return list(points)
    edges = [round(index * len(points) / most) for index in range(most + 1)]
    stretches = [points[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in stretches]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within [low, high], about ``count`` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number for an axis: 1500000 is 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}" if value else "0"


def chart(series: Sequence[Series]) -> str:
    """The series as one SVG element; the i-th has the class ``li``. The y axis is logarithmic where values need it."""
    curves = [(line.name, thin(line.points)) for line in series]
    xs = [x for _, points in curves for x, _ in points]
    ys = [y for _, points in curves for _, y in points]
    logarithmic = min(ys) > 0 and max(ys) / min(ys) > LOGARITHMIC_RATIO
    scale = math.log10 if logarithmic else float
    x_low, x_high = 0.0, max(max(xs), 1.0)
    y_low, y_high = scale(min(ys)), scale(max(ys))
    margin = (y_high - y_low) * 0.05 or abs(y_high) * 0.1 or 1.0
    y_low, y_high = y_low - margin, y_high + margin

    def across(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    parts.append(f"<title>{escape(', '.join(name for name, _ in curves))}</title>")
    if logarithmic:
        y_marks = [(float(power), 10.0**power) for power in range(math.ceil(y_low), math.floor(y_high) + 1)]
    else:
        y_marks = [(value, value) for value in ticks(y_low, y_high)]
    for position, value in y_marks:
        y = down(position)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for value in ticks(x_low, x_high):
        x = f"{across(value):.1f}"
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{short(value)}</text>')
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">images seen</text>')
    for number, (_, points) in enumerate(curves):
        positions = [(across(x), down(scale(y))) for x, y in points]
        if len(positions) == 1:
            parts.append(
                f'<circle class="line l{number}" cx="{positions[0][0]:.1f}" cy="{positions[0][1]:.1f}" r="3"/>'
            )
        else:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in positions)
            parts.append(f'<polyline class="line l{number}" points="{path}"/>')
    return "".join([*parts, "</svg>"])
