import json
from pathlib import Path
from typing import Any

import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.pipelines.pipeline import load
from simgan.compare import RefinerCompareConfig, main


def write_scores(directory: Path, error: float, drift: bool, task: str = "gaze", steps: int = 600) -> None:
    directory.mkdir(parents=True)
    names = ("mean_degrees", "within_7_degrees") if task == "gaze" else ("mean_pixels", "within_5_of_224")
    rows: dict[str, dict[str, float]] = {
        "simulated": {**dict(zip(names, (8.0, 0.25), strict=True)), "train_count": 50},
        "refined": {**dict(zip(names, (error, 0.5), strict=True)), "train_count": 50},
    }
    told = {"gaze": rows, "iris": {"mean": 1.0}} if task == "gaze" else {"joints": rows, "displacement": {"mean": 0.5}}
    (directory / "scores.json").write_text(json.dumps({"estimator": {"steps": steps}, **told, "drift": drift}))


def compare(scores: Path, out: Path) -> list[dict[str, Any]]:
    main.body(RefinerCompareConfig(scores=str(scores), out=str(out)))
    found: list[dict[str, Any]] = json.loads((out / "comparison.json").read_text())["rows"]
    return found


def test_rows_are_summarised_over_their_seeds(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores" / "paper" / "0", 6.0, False)
    write_scores(tmp_path / "scores" / "paper" / "1", 8.0, True)
    simulated, row = compare(tmp_path / "scores", tmp_path / "out")
    assert simulated["ratio to simulated"] is None
    assert row["ratio to simulated"]["value"] == pytest.approx((6 / 8 * 8 / 8) ** 0.5)  # a geometric mean of two
    assert row["mean error"] == pytest.approx([7.0, 2**0.5]) and row["drifted"] == 1 and row["within 7°"] == [50, 0]
    write_scores(tmp_path / "alone" / "paper" / "0", 6.0, False)
    compare(tmp_path / "alone", tmp_path / "out")
    _, row = json.loads((tmp_path / "out" / "report" / "gaze.json").read_text())["table"]["rows"]
    assert row[3:5] == ["6.00", "0.75"]  # one seed says nothing of a spread


def test_hands_are_compared_by_their_joints(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores" / "paper" / "0", 2.0, False, "hand")
    write_scores(tmp_path / "scores" / "global" / "0", 3.0, True, "hand")
    rows = compare(tmp_path / "scores", tmp_path / "out")[1::2]
    assert [(row["row"], row["mean error"], row["drifted"]) for row in rows] == [
        ("global", [3.0], 1),
        ("paper", [2.0], 0),
    ]
    assert [row["within 5 px of 224"] for row in rows] == [[50]] * 2 and rows[0]["joints moved"] == [0.5]
    section = json.loads((tmp_path / "out" / "report" / "joints.json").read_text())
    assert section["table"]["columns"] == list(rows[0]) and "Errors in pixels" in section["text"]


def test_scores_that_are_not_of_one_such_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found none"):
        compare(tmp_path, tmp_path / "out")
    write_scores(tmp_path / "scores" / "paper" / "0", 2.0, False, "hand")
    write_scores(tmp_path / "scores" / "paper" / "1", 2.0, False)
    with pytest.raises(UserError, match="joints in .*/0/scores.json, gaze in .*/1/scores.json"):
        compare(tmp_path / "scores", tmp_path / "out")
    (tmp_path / "scores" / "paper" / "1" / "scores.json").write_text('{"accuracies": 1}')
    with pytest.raises(UserError, match="holds accuracies, expected .* task=gaze or hand"):
        compare(tmp_path / "scores", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_scores_of_two_protocols_are_refused(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores" / "paper" / "0", 2.0, False)
    write_scores(tmp_path / "scores" / "paper" / "1", 2.0, False, steps=6000)
    with pytest.raises(UserError, match="/0/scores.json: estimator of steps 600; .*/1/scores.json: .* steps 6000"):
        compare(tmp_path / "scores", tmp_path / "out")
    file = tmp_path / "scores" / "paper" / "1" / "scores.json"
    scores = json.loads((tmp_path / "scores" / "paper" / "0" / "scores.json").read_text())
    scores["gaze"]["refined"]["train_count"] = 200
    file.write_text(json.dumps(scores))
    with pytest.raises(UserError, match="refined 50; .* refined 200"):
        compare(tmp_path / "scores", tmp_path / "out")


@pytest.mark.parametrize("pipeline", ["simgan_eyes", "simgan_hands"])
def test_rows_of_a_study_differ_in_one_key_from_the_papers(pipeline: str) -> None:
    stages = load(pipeline, "R").stages
    runs = {
        Path(stage.arguments["run.dir"]).parts[-2]: stage.arguments
        for stage in stages.values()
        if stage.module == "simgan.train" and stage.arguments["seed"] == "0"
    }
    paper = runs.pop("paper")
    for row, arguments in runs.items():
        differing = {name for name in paper if arguments[name] != paper[name]} - {"run.dir"}
        assert len(differing) == (2 if row == "global" else 1), row  # one verdict an image takes another λ
    assert sum(name.startswith("scores_") for name in stages) == 3 * (len(runs) + 1)
