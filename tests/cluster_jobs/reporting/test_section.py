import json
from pathlib import Path

from cluster_jobs.reporting.section import Picture, Section


def test_a_section_holds_what_the_report_shows(tmp_path: Path) -> None:
    Section(
        "scores",
        title="Scores für s3gan",
        text="as they are",
        columns=["method", "fd"],
        rows=[("s3gan", 1.5), ("floor", None)],
        pictures=[Picture("grid.png", "ten a class")],
    ).write(tmp_path)
    assert json.loads((tmp_path / "report" / "scores.json").read_text()) == {
        "title": "Scores für s3gan",
        "text": "as they are",
        "table": {"columns": ["method", "fd"], "rows": [["s3gan", 1.5], ["floor", None]]},
        "pictures": [{"file": "grid.png", "caption": "ten a class"}],
    }
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["scores.json"]


def test_a_section_without_a_table_says_so(tmp_path: Path) -> None:
    Section("note", title="Note").write(tmp_path)
    assert json.loads((tmp_path / "report" / "note.json").read_text())["table"] is None
