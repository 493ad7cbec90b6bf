"""Comparing the rows of a study: from scores.json files with known numbers to tables, a figure and a report."""

import csv
import math
import re
from pathlib import Path
from typing import Any

import pytest

from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.pipelines.pipeline import load
from cluster_jobs.report import render
from s3gan import compare as command
from s3gan import evaluate
from s3gan.comparison.figure import curves, panels
from s3gan.comparison.measures import kind_of
from s3gan.comparison.ratios import Cell, compare
from s3gan.comparison.study import method_and_percent, read_study
from s3gan.comparison.tables import decimals, label_table, measure_table, ratio_text
from s3gan.metrics.paired import Ratio
from tests.s3gan.test_evaluate import budget, data, template  # noqa: F401
from tests.s3gan.toy_study import scores, write

FD = "fd_classifier10k"


def study(root: Path, rows: dict[str, list[float]]) -> Path:
    """Scores with these Frechet distances, seed by seed."""
    for row, values in rows.items():
        for seed, value in enumerate(values):
            write(root, row, seed, scores(value, checkpoint=f"{row}{seed}"))
    return root


def test_a_study_becomes_tables_a_figure_and_a_report(tmp_path: Path) -> None:
    for seed, level in enumerate((1.0, 2.0, 4.0)):
        write(tmp_path / "scores", "supervised", seed, scores(level, intra=level, cas=0.8, draws=3))
        write(tmp_path / "scores", "s3gan_20", seed, scores(level / 2, intra=level, cas=0.4, draws=3, budget=0.85))
        write(tmp_path / "scores", "s3gan_10", seed, scores(2.0, intra=level * 1.5, cas=0.9, draws=3, budget=0.8))
        write(tmp_path / "scores", "single_label", seed, scores(level, draws=3))
    write_json(tmp_path / "labels" / "inferred_10.metrics.json", {"method": "classifier", "rows": 9, "accuracy": 0.906})
    out = tmp_path / "out"
    words = [f"scores={tmp_path / 'scores'}", f"labels={tmp_path / 'labels'}", f"out={out}"]
    assert command.main(words) == 0

    found = read_json(out / "comparison.json")
    assert list(found["rows"]) == ["single_label", "s3gan_10", "s3gan_20", "supervised"]
    assert found["rows"]["s3gan_10"] == {"method": "s3gan", "percent": 10, "seeds": [0, 1, 2]}
    assert list(found["measures"]) == [FD, "intra_fd_classifier10x500", "cas"]
    assert [found["measures"][name]["better"] for name in found["measures"]] == ["lower", "lower", "higher"]
    assert [found["measures"][name]["real"] for name in found["measures"]] == [0.05, None, 0.9]
    cells = {name: measure["rows"] for name, measure in found["measures"].items()}
    assert cells[FD]["s3gan_20"]["verdict"] == "better" and cells[FD]["supervised"]["verdict"] == "reference"
    assert cells["intra_fd_classifier10x500"]["s3gan_10"]["verdict"] == "worse"
    assert cells["cas"]["s3gan_20"]["verdict"] == "worse" and cells["cas"]["s3gan_10"]["verdict"] == "better"
    ratio = cells[FD]["s3gan_10"]["ratio"]  # ln of 2, 1 and 1/2: mean 0, standard deviation ln 2
    half = 4.302653 * math.log(2) / math.sqrt(3)
    assert (ratio["value"], ratio["low"], ratio["high"]) == pytest.approx((1.0, math.exp(-half), math.exp(half)))
    assert cells[FD]["s3gan_10"]["verdict"] == "not resolved"
    assert cells[FD]["supervised"]["mean"] == pytest.approx(7 / 3)
    assert cells[FD]["supervised"]["sd"] == pytest.approx(math.sqrt((16 + 1 + 25) / 9 / 2))

    lines = list(csv.DictReader((out / "comparison.csv").open()))
    assert len(lines) == 4 + 3 + 3
    line = next(line for line in lines if (line["measure"], line["row"]) == (FD, "s3gan_20"))
    assert (line["percent"], line["seeds"], line["ratio"], line["pairs"]) == ("20", "3", "0.5", "3")
    assert line["values"] == "0:0.5 1:1.0 2:2.0"

    text = (out / "comparison.md").read_text()
    assert "| s3gan_20 | 20 % | 3 | 1.17 ± 0.76 | 0.500 [0.500, 0.500] | better |" in text
    assert "| single_label | none | 0 | n/a |  |  |" in text
    assert "| inferred_10 | classifier | 9 | 90.6 % |  |" in text
    assert (
        "lower is better. 10,000 generated against 10,000 real images (test), detector 6b24ace0158f, mean of 3" in text
    )
    assert (out / "report" / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert re.search(r"!\[Scores against .*\]\(report/figure.png\)", text)
    page = render(tmp_path)
    assert "All rows as ratios to supervised" in page and "data:image/png" in page and "0.500 better" not in page
    assert "0.50 better" in page and "Label tables" in page


def test_what_is_missing_is_listed_and_not_fatal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = study(tmp_path / "scores", {"supervised": [1.0, 1.0], "s3gan_10": [2.0, 2.0, 9.0], "s2gan_10": [3.0]})
    assert (
        command.main([f"scores={root}", f"out={tmp_path / 'out'}", "rows=s2gan_10 supervised s3gan_10 s3gan_05"]) == 0
    )
    found = read_json(tmp_path / "out" / "comparison.json")
    assert found["notes"] == [
        "s3gan_05 has no scores of seeds 0, 1, 2",
        "s2gan_10 has no scores of seeds 1, 2",
        "s3gan_10: seed 2 in the means, not in the ratios (supervised lacks it)",
        "supervised has no scores of seed 2",
    ]
    assert all(note in capsys.readouterr().out for note in found["notes"][:1])
    cells = found["measures"][FD]["rows"]
    assert "s3gan_05" not in cells and cells["s3gan_10"]["mean"] == pytest.approx(13 / 3)
    assert cells["s3gan_10"]["ratio"] == {"value": 2.0, "low": 2.0, "high": 2.0, "pairs": 2}
    assert (cells["s2gan_10"]["verdict"], cells["s2gan_10"]["ratio"]["low"]) == ("one pair", None)


def test_a_row_without_partners_or_logarithms_has_no_ratio(tmp_path: Path) -> None:
    write(tmp_path, "supervised", 0, scores(1.0))
    write(tmp_path, "s3gan_10", 5, scores(1.0))
    write(tmp_path, "s3gan_20", 0, scores(-0.001))
    cells = compare(read_study(tmp_path, "supervised"), "supervised").cells[FD]
    assert (cells["s3gan_10"].ratio, cells["s3gan_10"].verdict) == (None, "no pair")
    assert (cells["s3gan_20"].ratio, cells["s3gan_20"].verdict) == (None, "no ratio: not above 0")


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (scores(1.0, detector="ffff"), "fd_classifier10k was measured with detector='ffff' instead of '6b24ace0158f'"),
        (scores(1.0, draws=3), "draws=3 instead of None"),
    ],
)
def test_scores_of_two_protocols_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, other: dict, expected: str
) -> None:
    study(tmp_path / "scores", {"supervised": [1.0]})
    write(tmp_path / "scores", "s3gan_10", 0, other)
    assert command.main([f"scores={tmp_path / 'scores'}", f"out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert expected in error and "s3gan_10/0/scores.json" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_scores_of_other_names_are_other_measures(tmp_path: Path) -> None:
    study(tmp_path, {"supervised": [1.0]})
    write(tmp_path, "s3gan_10", 0, scores(1.0, count=5_000))
    found = compare(read_study(tmp_path, "supervised"), "supervised")
    assert set(found.cells) == {FD, "fd_classifier5k"}
    assert found.cells["fd_classifier5k"]["s3gan_10"].verdict == "no pair"
    assert panels(found) == [FD]


def test_rows_that_saw_other_numbers_of_images_and_scores_that_cannot_be_are_noted(tmp_path: Path) -> None:
    study(tmp_path, {"supervised": [1.0, 1.0]})
    for seed in (0, 1):
        content = scores(1.0, nimg=512_000)
        content["cas"] = {"results": {"pool": {"n/a": "means nothing"}, "all": {"accuracy": 0.9}}, "draws": []}
        content["intra"] = {"results": {"n/a": "no class"}, "draws": content["distances"]["draws"]}
        content["memorisation"] = {
            "results": {"nn_ratio_classifier2k": {"value": 1.0}},
            "draws": content["distances"]["draws"],
        }
        write(tmp_path, "single_label", seed, content)
    found = read_study(tmp_path, "supervised")
    assert sorted(found.notes) == [
        "nn_ratio_classifier2k is not compared: no direction of it is good by itself",
        "single_label has no cas: means nothing",
        "single_label has no intra: no class",
        "single_label saw 512,000 images, supervised 256,000: not compared at equal images seen",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"distances": {"results": {}}}, "no scores of s3gan.evaluate"),
        ([1], "no scores of s3gan.evaluate"),
    ],
)
def test_a_file_that_holds_no_scores_is_named(tmp_path: Path, content: object, expected: str) -> None:
    path = tmp_path / "supervised" / "0" / "scores.json"
    write_json(path, content)
    with pytest.raises(evaluate.UserError, match=f"{re.escape(str(path))}: {expected}"):
        read_study(tmp_path, "supervised")


def test_a_reference_without_scores_is_refused_with_those_that_have_some(tmp_path: Path) -> None:
    study(tmp_path, {"s3gan_10": [1.0]})
    with pytest.raises(
        evaluate.UserError, match=r"reference=supervised: expected a row that has scores .*\(s3gan_10\)"
    ):
        read_study(tmp_path, "supervised")
    with pytest.raises(evaluate.UserError, match="none has ROW/SEED/scores.json"):
        read_study(tmp_path / "nothing", "supervised")


def test_the_rows_of_the_pipeline_say_which_share_of_the_labels_they_saw() -> None:
    pipeline = load("label_efficiency", "root")
    places = {}
    for name, stage in pipeline.stages.items():
        if stage.module == "s3gan.train":
            row = Path(stage.arguments["run.dir"]).parts[-2]
            assert method_and_percent(row)[0] == stage.arguments["method"], name
            places[row] = method_and_percent(row)[1]
            tables = [pipeline.stages[need] for need in stage.needs]
            fractions = [float(t.arguments["fraction"]) for t in tables if "fraction" in t.arguments]
            fractions += [int(t.name[-2:]) / 100 for t in tables if t.arguments["method"] == "classifier"]
            assert places[row] == round(100 * (fractions or [0.0])[0]), name
    assert len(places) == 18 and set(places.values()) == {0, 1, 2, 5, 10, 20, 100}
    assert method_and_percent("s3gan_10_without_rotation") == ("s3gan_10_without_rotation", None)
    assert method_and_percent("other_10") == ("other_10", None)


def test_the_figure_has_a_curve_for_each_method_and_a_line_for_each_without_labels(tmp_path: Path) -> None:
    rows = {"supervised": [1.0, 3.0], "s3gan_20": [1.0], "s3gan_01": [4.0, 6.0], "single_label": [2.0], "other": [9.0]}
    found = compare(read_study(study(tmp_path, rows), "supervised"), "supervised")
    points = {
        method: [(point.percent, point.mean, point.sd) for point in points]
        for method, points in curves(found, FD).items()
    }
    assert points == {
        "single_label": [(0, 2.0, 0.0)],
        "s3gan": [(1, 5.0, pytest.approx(math.sqrt(2))), (20, 1.0, 0.0)],
        "supervised": [(100, 2.0, pytest.approx(math.sqrt(2)))],
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fd_classifier10k", "fd"),
        ("fid50k", "fd"),
        ("intra_fd_classifier10x900", "intra"),
        ("kd_dinov2_10k_train", "kd"),
        ("precision_classifier10k", "precision"),
        ("coverage_inception_10k", "coverage"),
        ("is50k", "is"),
        ("cas", "cas"),
        ("nn_ratio_classifier2k", None),
    ],
)
def test_the_direction_of_a_score_follows_from_its_name(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


def test_numbers_of_a_column_have_as_many_places_as_the_smallest_needs() -> None:
    assert [decimals([0.05, 12.0])(value) for value in (0.05, 12.0)] == ["0.0500", "12.0000"]
    assert decimals([250.0, 1234.4])(1234.4) == "1234"


def test_a_ratio_is_written_with_its_interval_where_it_has_one() -> None:
    texts = [
        ratio_text(Cell({0: 1.0}, 1.0, None, ratio, ""))
        for ratio in (Ratio(0.5, 0.004, 23.77, 3), Ratio(2, None, None, 1))
    ]
    assert texts == ["0.500 [0.004, 23.8]", "2.000"]


def test_only_tables_whose_labels_somebody_made_are_scored() -> None:
    tables: dict[str, dict[str, Any]] = {
        "budget_10": {"method": "reveal", "rows": 6000},
        "clusters": {"method": "kmeans", "rows": 60000, "majority accuracy": 0.617, "nmi": 0.44},
        "unknown": {"method": "classifier", "accuracy": None},
    }
    assert label_table(tables)[1] == [["clusters", "kmeans", 60000, "", "61.7 %"]]


@pytest.mark.slow
def test_scores_of_real_evaluations_compare(tmp_path, template, data, budget) -> None:  # noqa: F811
    """Whatever s3gan.evaluate writes today is what the comparison reads."""
    recipe = ["classifier.width=4", "classifier.steps=3", "classifier.batch=8", "threads=1"]
    for row in ("supervised", "s3gan_50"):
        words = [
            f"run={template}",
            f"data={data}",
            f"budget={budget}",
            f"cache={tmp_path / 'cache'}",
            "count=30",
            *recipe,
        ]
        out = tmp_path / "scores" / row / "0"
        assert evaluate.main([*words, f"out={out}"]) == 0
    assert command.main([f"scores={tmp_path / 'scores'}", f"out={tmp_path / 'out'}"]) == 0
    found = compare(read_study(tmp_path / "scores", "supervised"), "supervised")
    assert {"fd_classifier6", "kd_classifier6", "cas"} <= set(found.cells)
    ratio = found.cells["fd_classifier6"]["s3gan_50"].ratio
    assert ratio is not None and ratio.value == 1.0, "the same run twice"
    columns, rows = measure_table(found, "cas")
    assert rows[0][0] == "real images" and [row[0] for row in rows[1:]] == ["s3gan_50", "supervised"]
    assert found.study.budgets.keys() == {50}
