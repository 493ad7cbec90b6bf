"""The parts of the report as HTML: every text is escaped, every picture is inline, nothing is loaded from elsewhere."""

import base64
import re
import struct
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from cluster_jobs.core.errors import UserError
from cluster_jobs.reporting.curves import Series, chart, group, short

MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
SMALL_PIXELS = 640  # narrower pictures are enlarged by a whole number, so that single pixels stay crisp
NUMBER = re.compile(r"n/a|-?[\d,.]+(e[-+]?\d+)?\s?%?|-?inf|nan")

STYLE = """
:root { color-scheme: light dark; --back: #fcfcfb; --card: #ffffff; --text: #1d1f23; --soft: #62666e;
  --rule: #e3e4e6; --link: #1b5fbf; --code: #f3f4f5; --good: #1f7a3d; --bad: #b3261e;
  --l0: #2166c4; --l1: #d9651e; --l2: #23894f; --l3: #a03fb0; --l4: #b38600; --l5: #5d6b7a; }
@media (prefers-color-scheme: dark) { :root { --back: #15171a; --card: #1c1f23; --text: #e6e7e9; --soft: #9da2ab;
  --rule: #30343a; --link: #7db2ff; --code: #23272c; --good: #6cc98a; --bad: #ff8a80;
  --l0: #6fa8ff; --l1: #ff9d5c; --l2: #5fce8f; --l3: #d98be6; --l4: #e0bd4a; --l5: #a9b6c4; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.6 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
.layout { display: grid; grid-template-columns: 15rem minmax(0, 62rem); gap: 3rem; max-width: 84rem;
  margin: 0 auto; padding: 0 1.5rem 6rem; }
nav { position: sticky; top: 0; align-self: start; max-height: 100vh; overflow: auto; padding: 2.6rem 0 1rem;
  font-size: .9rem; }
nav a { display: block; padding: .2rem 0; color: var(--soft); text-decoration: none; overflow-wrap: anywhere; }
nav a:hover { color: var(--link); }
header { padding: 2.2rem 0 1rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 3.2rem 0 1rem; padding-top: 1.2rem;
  border-top: 1px solid var(--rule); overflow-wrap: anywhere; }
header + h2 { margin-top: 1.2rem; }
h3 { font-size: 1.02rem; margin: 2rem 0 .4rem; }
p { margin: .4rem 0 .9rem; max-width: 46rem; }
.soft, figcaption, .lead { color: var(--soft); }
.scroll { overflow-x: auto; margin: .6rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .34rem .9rem .34rem 0; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
figure { margin: .8rem 0 1.6rem; }
figcaption { font-size: .85rem; margin-top: .4rem; max-width: 46rem; }
img { max-width: 100%; height: auto; border-radius: 4px; background: #fff; display: block; }
img.crisp { image-rendering: pixelated; }
.shown { display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: flex-start; }
.shown > * { max-width: 100%; }
.film { display: flex; gap: 1rem; overflow-x: auto; padding-bottom: .6rem; }
.film figure { flex: 0 0 13rem; margin: .4rem 0; }
.film img { width: 13rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); gap: 1rem 2rem; }
.charts figure { margin: 0; }
.chart { width: 100%; height: auto; display: block; }
.chart text { fill: var(--soft); font-size: 12px; }
.chart .grid { stroke: var(--rule); }
.chart .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.chart circle.line { fill: currentColor; }
.legend { font-size: .85rem; display: flex; flex-wrap: wrap; gap: .1rem 1rem; color: var(--soft); }
.legend b { color: var(--text); margin-right: .2rem; }
.legend i { display: inline-block; width: 1.1em; height: 3px; border-radius: 2px; margin-right: .4em;
  vertical-align: middle; background: currentColor; }
.l0 { color: var(--l0); stroke: var(--l0); } .l1 { color: var(--l1); stroke: var(--l1); }
.l2 { color: var(--l2); stroke: var(--l2); } .l3 { color: var(--l3); stroke: var(--l3); }
.l4 { color: var(--l4); stroke: var(--l4); } .l5 { color: var(--l5); stroke: var(--l5); }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--link); font-size: .92rem; }
pre { background: var(--code); border-radius: 6px; padding: .8rem 1rem; overflow-x: auto; font: .82rem/1.5
  ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre.wrap { white-space: pre-wrap; overflow-wrap: anywhere; }
.done { color: var(--good); } .failed { color: var(--bad); }
@media (max-width: 60rem) { .layout { display: block; padding: 0 1rem 4rem; }
  nav { position: static; max-height: none; padding: 1rem 0 0; display: flex; flex-wrap: wrap; gap: 0 1rem; }
  header { padding-top: 1rem; } h1 { font-size: 1.6rem; } }
@media print { nav { display: none; } .layout { display: block; } }
"""


def document(title: str, lead: Sequence[str], chapters: Sequence[tuple[str, str]]) -> str:
    """The whole page: chapters are (heading, HTML) pairs."""
    links = "".join(f'<a href="#c{i}">{escape(heading)}</a>' for i, (heading, _) in enumerate(chapters))
    body = "".join(f'<h2 id="c{i}">{escape(heading)}</h2>{html}' for i, (heading, html) in enumerate(chapters))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f'<body><div class="layout"><nav>{links}</nav><main><header><h1>{escape(title)}</h1>'
        f'<div class="lead">{"".join(map(paragraph, lead))}</div></header>{body}</main></div></body></html>\n'
    )


def paragraph(text: str) -> str:
    return "".join(f"<p>{escape(part.strip())}</p>" for part in text.split("\n\n") if part.strip())


def cell(value: Any) -> str:
    """A value as a table shows it: four significant digits, thousands separated, n/a for None."""
    if value is None:
        return "n/a"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)


def table(columns: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """A table; a column whose values are all numbers (or n/a) is set to the right."""
    right = [all(NUMBER.fullmatch(cell(row[i])) for row in rows) for i in range(len(columns))]
    kinds = [' class="number"' if number else "" for number in right]
    head = "".join(f"<th{kind}>{escape(str(name))}</th>" for kind, name in zip(kinds, columns, strict=True))
    lines = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell(v))}</td>" for kind, v in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def picture(file: Path, caption: str, *, natural: bool = True) -> str:
    """An inline picture. ``natural`` sets its width from its pixels, otherwise the style sheet does."""
    if file.suffix.lower() not in MEDIA:
        raise UserError(f"{file}: expected a picture ({', '.join(MEDIA)})")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    shape = ""
    if content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) >= 24 and natural:
        width, height = struct.unpack(">II", content[16:24])
        factor = max(1, min(3, SMALL_PIXELS // max(width, 1)))
        shape = f' width="{width * factor}" height="{height * factor}"' + (' class="crisp"' if factor > 1 else "")
    source = f"data:{MEDIA[file.suffix.lower()]};base64,{base64.b64encode(content).decode()}"
    return (
        f'<figure><img src="{source}" alt="{escape(caption)}" loading="lazy"{shape}>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def charts(series: Sequence[Series]) -> str:
    """Charts of what changes, each with its legend (the last value of each curve), and a line for what does not."""
    figures = []
    for members in group([member for member in series if not member.constant]):
        entries = "".join(
            f'<span><i class="l{i}"></i>{escape(member.name)} {short(member.points[-1][1])}</span>'
            for i, member in enumerate(members)
        )
        prefix = f"<b>{escape(members[0].prefix)}</b>" if members[0].prefix else ""
        figures.append(f'<figure><div class="legend">{prefix}{entries}</div>{chart(members)}</figure>')
    constant = ", ".join(f"{member.key} {short(member.points[0][1])}" for member in series if member.constant)
    note = f'<p class="soft">One value throughout: {escape(constant)}</p>' if constant else ""
    return f'<div class="charts">{"".join(figures)}</div>{note}'


def folded(summary: str, text: str, *, wrap: bool = False) -> str:
    """A collapsible text, of which only the summary is visible at first."""
    kind = ' class="wrap"' if wrap else ""
    return f"<details><summary>{escape(summary)}</summary><pre{kind}>{escape(text)}</pre></details>"
