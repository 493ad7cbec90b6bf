"""The display of a running pipeline: a live table on a terminal, plain lines in a file."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster_jobs.core.progress import duration

PLAIN_INTERVAL_SECONDS = 60.0
STYLES = {
    "waiting": "dim",
    "running": "bold",
    "done": "green",
    "skipped": "green",
    "failed": "red",
    "stopped": "yellow",
}
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass
class Line:
    """The state of one stage as the display shows it."""

    name: str
    log: Path
    state: str = "waiting"  # one of STYLES
    started: float = 0.0  # time.monotonic()
    seconds: float = 0.0  # of the last attempt, once it ended

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started if self.state == "running" else self.seconds

    @property
    def progress(self) -> str:
        """The last line of the log, once there is more than the command."""
        last = "".join(tail(self.log, 1))
        return "" if last.startswith("$ ") else last


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a log, without the control codes and overwritten states of a progress bar."""
    if not log.is_file():
        return []
    with open(log, "rb") as stream:
        stream.seek(max(0, stream.seek(0, 2) - 400 * (lines + 2)))
        text = stream.read().decode(errors="replace")
    texts = [CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip() for line in text.split("\n")]
    return [line for line in texts if line][-lines:]


class Display:
    """Shows the stages: ``with Display(lines) as display: ... display.refresh()``."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines
        self.console = Console()
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._shown: dict[str, tuple[str, float]] = {}  # state and time of each stage's last plain line

    def __enter__(self) -> "Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.refresh()
        if self.live:
            self.live.stop()

    def refresh(self) -> None:
        if self.live:
            self.live.update(self._table(), refresh=True)
            return
        for line in self.lines:
            state, when = self._shown.get(line.name, ("waiting", 0.0))
            now = time.monotonic()
            if line.state != state or (state == "running" and now - when > PLAIN_INTERVAL_SECONDS):
                progress = line.progress if line.state == state else ""
                print(f"{line.state:>8}  {line.name}  {duration(line.elapsed)}  {progress}".rstrip(), flush=True)
                self._shown[line.name] = line.state, now

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for line in self.lines:
            progress = line.progress if line.state in ("running", "failed", "stopped") else ""
            elapsed = duration(line.elapsed) if line.state != "waiting" else ""
            table.add_row(Text(line.state, STYLES[line.state]), line.name, elapsed, Text(progress, "dim"))
        return table
