import json
from pathlib import Path

import pytest

from cluster_jobs.errors import UserError
from cluster_jobs.pipeline import load
from simgan.compare import CompareConfig, main


def write_scores(directory: Path, error: float, drift: bool) -> None:
    directory.mkdir(parents=True)
    rows = {"refined": {"mean_degrees": error, "within_7_degrees": 0.5}}
    (directory / "scores.json").write_text(json.dumps({"gaze": rows, "iris": {"mean": 1.0}, "drift": drift}))


def test_rows_are_summarised_over_their_seeds(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores" / "paper" / "0", 6.0, False)
    write_scores(tmp_path / "scores" / "paper" / "1", 8.0, True)
    main.body(CompareConfig(scores=str(tmp_path / "scores"), out=str(tmp_path / "out")))
    (row,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert row["mean error"] == pytest.approx([7.0, 2**0.5]) and row["drifted"] == 1 and row["within 7°"] == [50, 0]
    with pytest.raises(UserError, match="found none"):
        main.body(CompareConfig(scores=str(tmp_path / "out"), out=str(tmp_path / "out")))


def test_rows_of_the_study_of_eyes_differ_in_one_key_from_the_papers() -> None:
    stages = load("simgan_eyes", "R").stages
    runs = {
        Path(stage.arguments["run.dir"]).parts[-2]: stage.arguments
        for stage in stages.values()
        if stage.module == "simgan.train" and stage.arguments["seed"] == "0"
    }
    paper = runs.pop("paper")
    for row, arguments in runs.items():
        differing = {name for name in paper if arguments[name] != paper[name]} - {"run.dir"}
        assert len(differing) == (2 if row == "global" else 1), row  # one verdict an image takes another λ
    assert sum(stage.module == "simgan.evaluate" for stage in stages.values()) == 3 * (len(runs) + 1)
