"""Progress of a finite task, as a live bar on a terminal and as occasional lines in a log; the format of a duration."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_SECONDS = 30.0
PROGRESS_FILE = (
    "progress.json"  # in a run directory: how far the run is, for other programs (written by run_metrics.py)
)
Item = TypeVar("Item")


def duration(seconds: float) -> str:
    """Seconds as ``3m05s`` or ``2h07m``."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"


class _Rate(ProgressColumn):
    """Units per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} {self.unit}/s")


def track(items: Iterable[Item], total: int, unit: str, what: str, weight: int) -> Iterator[Item]:
    """Yields the items and shows how far they are, on stderr: units done, units/s and time left.

    Args:
        total: units in all.
        weight: units that one item counts as; the last item may count as fewer.
    """
    console = Console(stderr=True)
    return (
        _bar(items, total, unit, what, weight, console)
        if console.is_terminal
        else _lines(items, total, unit, what, weight)
    )


def _bar(items: Iterable[Item], total: int, unit: str, what: str, weight: int, console: Console) -> Iterator[Item]:
    columns = [TextColumn(what), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn()]
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        task = progress.add_task(what, total=total)
        done = 0
        for item in items:
            yield item
            done = min(done + weight, total)
            progress.update(task, completed=done)


def _lines(items: Iterable[Item], total: int, unit: str, what: str, weight: int) -> Iterator[Item]:
    begin = shown = time.monotonic()
    done = 0
    for item in items:
        yield item
        done = min(done + weight, total)
        now = time.monotonic()
        if now - shown >= LINE_SECONDS and done < total:
            shown, rate = now, done / (now - begin)
            left = duration((total - done) / rate)
            print(f"{what}: {done:,}/{total:,} {unit}  {rate:,.0f} {unit}/s  {left} left", file=sys.stderr, flush=True)
    elapsed = max(time.monotonic() - begin, 1e-9)
    rate = done / elapsed
    print(f"{what}: {done:,} {unit} in {elapsed:.1f} s ({rate:,.0f} {unit}/s)", file=sys.stderr, flush=True)
