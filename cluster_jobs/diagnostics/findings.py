"""A finding of a check of ``doctor``: its level, subject, description and remedy."""

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
    """Prints findings as they come, or on a terminal one table at the end; returns them."""
    if not console.is_terminal:
        printed = []
        for finding in findings:
            print(finding.line, flush=True)
            printed.append(finding)
        return printed
    with console.status("checking"):
        printed = list(findings)
    table = Table("", "what", "finding", "remedy")
    for finding in printed:
        level = Text(finding.level, STYLES[finding.level])
        table.add_row(level, Text(finding.subject), Text(finding.finding), Text(finding.remedy))
    console.print(table)
    return printed


def save(findings: Sequence[Finding], path: Path) -> None:
    """Writes the findings as a JSON list."""
    write_json(path, [asdict(finding) for finding in findings])
