"""What a check of ``doctor`` has found: a level, the subject, the finding in words, and the remedy."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster_jobs.core.files import write_json

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class Finding:
    """``level`` is ``ok``, ``warn`` (slower or riskier than need be) or ``fail`` (a run would not work)."""

    level: str
    subject: str
    finding: str
    remedy: str = ""

    @property
    def line(self) -> str:
        return f"{self.level:<4}  {self.subject}: {self.finding}" + (f"; {self.remedy}" if self.remedy else "")


def ok(subject: str, finding: str) -> Finding:
    return Finding("ok", subject, finding)


def warn(subject: str, finding: str, remedy: str) -> Finding:
    return Finding("warn", subject, finding, remedy)


def fail(subject: str, finding: str, remedy: str) -> Finding:
    return Finding("fail", subject, finding, remedy)


def show(findings: Iterable[Finding], console: Console) -> list[Finding]:
    """Prints findings as they come, on a terminal as one table in the end; returns them."""
    if not console.is_terminal:
        shown = []
        for finding in findings:
            print(finding.line, flush=True)
            shown.append(finding)
        return shown
    with console.status("checking"):
        shown = list(findings)
    table = Table("", "what", "finding", "remedy")
    for finding in shown:
        level = Text(finding.level, STYLES[finding.level])
        table.add_row(level, Text(finding.subject), Text(finding.finding), Text(finding.remedy))
    console.print(table)
    return shown


def save(findings: Sequence[Finding], path: Path) -> None:
    """Writes the findings as a JSON list."""
    write_json(path, [asdict(finding) for finding in findings])
