"""The report: one file that shows what the stages left, in their order, and fetches and trusts nothing."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_json
from cluster_jobs.report import main as report
from cluster_jobs.report import render
from cluster_jobs.reporting.curves import Series, chart, group, read_series, short, thin, ticks
from cluster_jobs.reporting.html import cell, charts, table
from cluster_jobs.reporting.section import Picture, Section


class Reader(HTMLParser):
    """Tags, links and visible text of a page; fails on tags that do not nest."""

    VOID = ("meta", "img", "line", "polyline", "circle", "br", "link")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def headings(self) -> list[str]:
        return [text for text in re.findall(r"<h2[^>]*>([^<]*)</h2>", self.html)]


def draw(path: Path, colour: int = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 16), colour, np.uint8)).save(path)
    return path


def make_run(directory: Path) -> None:
    draw(directory / "samples" / "000000.png", 1)
    draw(directory / "samples" / "002000.png", 2)
    lines = [{"nimg": n, "loss/d": 1.0 / (n + 1), "loss/g": float("nan") if n == 2 else n} for n in range(5)]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"nimg": 5, "lo'
    (directory / "metrics.jsonl").write_text(text)
    (directory / "config.yaml").write_text("seed: 0\nname: <b>bold</b>\n")


def make_root(root: Path) -> None:
    """A pipeline whose stage names are not in the order of the alphabet, with a section and a run."""
    stages = {
        "labels": {"command": "python -m x 'out=a b'", "needs": [], "outputs": [str(root / "z labels/t.parquet")]},
        "gan": {"command": "python -m y", "needs": ["labels"], "outputs": [str(root / "gan")]},
        "report": {"command": "python -m z", "needs": ["gan"], "outputs": [], "reports": True},
    }
    write_json(root / "pipeline.json", {"pipeline": "toy", "description": "One & only.", "stages": stages})
    write_json(root / "stages/labels/exit.json", {"state": "done", "code": 0, "message": "", "command": ""})
    write_json(root / "stages/labels/stage.json", {"command": "", "seconds": 75.0, "lives": 1})
    write_json(root / "stages/gan/exit.json", {"state": "failed", "code": 2, "message": "a < b", "command": ""})
    draw(root / "z labels/report/p.png")
    Section(
        "t",
        title="Labels <script>",
        text="First.\n\nSecond.",
        columns=["measure", "value"],
        rows=[["accuracy", 0.87654321], ["count", 12345], ["nobody knows", None]],
        pictures=[Picture("p.png", "a caption & more")],
    ).write(root / "z labels")
    make_run(root / "gan")


def test_the_page_shows_what_the_stages_left_in_their_order(tmp_path: Path) -> None:
    make_root(tmp_path)
    page = Reader(render(tmp_path))
    assert page.headings() == ["z labels", "gan", "Stages and commands"]
    for words in (
        "One & only.", "Labels <script>", "Second.", "0.8765", "12,345", "n/a", "a caption & more",
        "after 2,000 images",
        "name: <b>bold</b>", "python -m x 'out=a b'", "1 of 2 stages done; 1m15s of work in all.", "a < b",
    ):  # fmt: skip
        assert words in page.text, words
    assert len([tag for tag, _ in page.tags if tag == "polyline"]) == 2


def test_the_page_needs_no_other_file_and_runs_no_script(tmp_path: Path) -> None:
    make_root(tmp_path)
    html = render(tmp_path)
    page = Reader(html)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    assert "<b>bold" not in html
    for _, attributes in page.tags:
        assert attributes.get("href", "#").startswith("#")
        assert attributes.get("src", "data:image/").startswith("data:image/")
    assert "url(" not in html and "@import" not in html
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert base64.b64decode(sources[0].split(",")[1]) == (tmp_path / "z labels/report/p.png").read_bytes()
    assert len(sources) == 1 + 1 + 2  # the section's picture, the last sample, two in the film strip


def test_small_pictures_are_enlarged_by_a_whole_number(tmp_path: Path) -> None:
    make_root(tmp_path)
    first = next(attributes for tag, attributes in Reader(render(tmp_path)).tags if tag == "img")
    assert (first["width"], first["height"], first["class"]) == ("48", "24", "crisp")


def test_the_command_writes_the_page_and_refuses_what_it_cannot_show(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = tmp_path / "r ü'n"
    assert report([f"root={root}"]) == 2
    assert "no such directory" in capsys.readouterr().err
    root.mkdir()
    assert report([f"root={root}"]) == 2
    assert "nothing to report" in capsys.readouterr().err
    make_run(root)
    assert report([f"root={root}"]) == 0
    assert Reader((root / "report.html").read_text()).headings() == ["Overview"]


def test_a_section_shows_no_picture_from_elsewhere(tmp_path: Path) -> None:
    draw(tmp_path / "secret.png")
    Section("s", title="t", pictures=[Picture("../../secret.png", "c")]).write(tmp_path / "stage")
    with pytest.raises(UserError, match=r"picture '../../secret.png': expected a file in"):
        render(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"text": "no title"}', '{"title": "t", "table": {"columns": 3}}'])
def test_a_damaged_section_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "stage/report/s.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(UserError, match="s.json"):
        render(tmp_path)


def test_a_damaged_line_of_metrics_is_named_unless_it_is_the_last(tmp_path: Path) -> None:
    make_run(tmp_path)
    render(tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('\n{"nimg": 6}\n')
    with pytest.raises(UserError, match="metrics.jsonl, line 6"):
        render(tmp_path)


def test_metrics_are_grouped_by_prefix_and_size_without_what_is_not_finite() -> None:
    lines = [
        {"nimg": 1, "loss/d": 1.0, "fd": float("inf"), "loss/big": 90.0},
        {"nimg": 2, "loss/d": 2.0, "loss/g": 3.0, "fd": 4.0},
    ]
    series = read_series(lines)
    assert series["fd"] == Series("fd", [(2.0, 4.0)])
    assert series["loss/d"] == Series("loss/d", [(1.0, 1.0), (2.0, 2.0)])
    grouped = [[member.key for member in members] for members in group(series.values())]
    assert grouped == [["loss/big", "loss/g"], ["loss/d"], ["fd"]]
    many = read_series([{"nimg": 1, **{f"a/{i}": 1.0 for i in range(8)}}])
    assert [len(members) for members in group(many.values())] == [6, 2]


def test_what_does_not_change_is_a_line_of_text() -> None:
    drawn = charts([Series("skipped", [(1.0, 0.0), (2.0, 0.0)]), Series("loss", [(1.0, 1.0), (2.0, 2.0)])])
    assert drawn.count("<svg") == 1 and "One value throughout: skipped 0" in drawn


def test_a_chart_puts_values_where_its_axes_say() -> None:
    drawn = chart([Series("a", [(0.0, 0.0), (50.0, 10.0), (100.0, 5.0)])])
    places = [tuple(map(float, place.split(","))) for place in re.findall(r'points="([^"]*)"', drawn)[0].split()]
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and x2 == pytest.approx(548, abs=0.1)
    assert y1 < y2 < y0 and y2 == pytest.approx((y0 + y1) / 2, abs=0.2)


def test_a_chart_of_one_value_or_of_many_magnitudes_is_drawn() -> None:
    assert "<circle" in chart([Series("a", [(5.0, 0.0)])])
    steps = chart([Series("a", [(float(n), 10.0**n) for n in range(5)])])
    heights = [float(place.split(",")[1]) for place in re.findall(r'points="([^"]*)"', steps)[0].split()]
    assert np.ptp(np.diff(heights)) < 0.3, "not logarithmic"


def test_thinning_keeps_the_mean() -> None:
    points = [(float(n), float(n % 7)) for n in range(2100)]
    few = thin(points, 300)
    assert len(few) == 300
    assert np.mean([y for _, y in few]) == pytest.approx(np.mean([y for _, y in points]))


def test_numbers_are_short() -> None:
    assert [short(v) for v in (0.0, 0.12345, 1500.0, 2_000_000.0, -3e9)] == ["0", "0.123", "1.5k", "2M", "-3G"]
    assert ticks(0.0, 1.0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert [cell(v) for v in (None, 1234, 0.123456, 123456.7, True, "x")] == [
        "n/a", "1,234", "0.1235", "123,457", "True", "x",
    ]  # fmt: skip
    assert '<td class="number">n/a</td>' in table(["n"], [[1], [None]])
