"""Repeated stages: what `each` makes of a stage, which copies a need means, and which part of a pipeline runs."""

from pathlib import Path

import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.pipelines.local import Local
from cluster_jobs.pipelines.pipeline import Pipeline
from cluster_jobs.pipelines.stage_records import finished
from cluster_jobs.submit import main as submit
from tests.cluster_jobs.test_submit import importable, lines, pipeline, run_alone, states, toy, write  # noqa: F401

ROWS = {"s3gan_10": {"method": "s3gan", "labels": "inferred_10"}, "single": {"method": "single", "labels": "one"}}


def needs(found: Pipeline) -> dict[str, tuple[str, ...]]:
    return {name: stage.needs for name, stage in found.stages.items()}


def test_a_stage_is_repeated_over_a_list(tmp_path: Path) -> None:
    gan = toy(out="${root}/gan/${seed}", text="${seed} of ${n}") | {"each": {"seed": [0, 1, True]}}
    found = pipeline(tmp_path, {"gan": gan}, vars={"n": 3}).stages
    root = tmp_path / "root"
    assert {name: stage.words for name, stage in found.items()} == {
        "gan_0": (f"out={root}/gan/0", "text=0 of 3"),
        "gan_1": (f"out={root}/gan/1", "text=1 of 3"),
        "gan_true": (f"out={root}/gan/true", "text=true of 3"),
    }


def test_a_var_holds_the_values_so_that_a_study_grows_and_keeps_what_is_finished(tmp_path: Path) -> None:
    stages = {"gan": toy(out="${root}/gan${seed}") | {"each": {"seed": "${seeds}"}}}
    seeds = {"seeds": "0 1"}
    run_alone(Local(pipeline(tmp_path, stages, vars=seeds), tmp_path / "root", parallel=2))
    more = pipeline(tmp_path, stages, variables="seeds='0 1 2'", vars=seeds)
    assert list(more.stages) == ["gan_0", "gan_1", "gan_2"]
    assert finished(more, tmp_path / "root") == {"gan_0", "gan_1"}


def test_a_mapping_names_the_copies_and_gives_each_further_values(tmp_path: Path) -> None:
    stages = {
        "inferred_10": toy(out="${root}/inferred_10"),
        "one": toy(out="${root}/one"),
        "gan": toy(["${labels}"], out="${root}/${run}", reads="${root}/${labels}", text="${method} ${seed}")
        | {"each": {"row": {k: v | {"run": "gan/${row}"} for k, v in ROWS.items()}, "seed": [0, 1]}},
    }
    stages["gan"]["args"]["out"] += "/${seed}"
    found = pipeline(tmp_path, stages).stages
    assert list(found)[2:] == ["gan_s3gan_10_0", "gan_s3gan_10_1", "gan_single_0", "gan_single_1"]
    assert found["gan_single_1"].needs == ("one",)
    root = tmp_path / "root"
    assert found["gan_single_1"].words == (f"out={root}/gan/single/1", f"reads={root}/one", "text=single 1")


def test_a_need_means_the_copies_with_the_same_values(tmp_path: Path) -> None:
    both = {"row": ROWS, "seed": [0, 1]}
    stages = {
        "data": toy(out="data"),
        "gan": toy(["data"], out="gan/${row}/${seed}") | {"each": both},
        "scores": toy(["gan"], out="scores/${row}/${seed}") | {"each": both},
        "row": toy(["scores"], out="row/${row}") | {"each": {"row": ["single", "s3gan_10"]}},
        "compare": toy(["scores", "gan_single_1", "scores"], out="compare"),
    }
    found = needs(pipeline(tmp_path, stages))
    assert found["gan_single_1"] == ("data",)
    assert found["scores_single_1"] == ("gan_single_1",)
    assert found["row_single"] == ("scores_single_0", "scores_single_1")
    scores = tuple(f"scores_{row}_{seed}" for row in ROWS for seed in (0, 1))
    assert found["compare"] == (*scores, "gan_single_1")


def test_neighbours_with_the_same_values_come_copy_by_copy(tmp_path: Path) -> None:
    stages = {
        "gan": toy(out="gan${seed}") | {"each": {"seed": [0, 1]}},
        "scores": toy(["gan"], out="scores${seed}") | {"each": {"seed": [0, 1]}},
        "other": toy(out="other${seed}") | {"each": {"seed": [0]}},
    }
    assert list(pipeline(tmp_path, stages).stages) == ["gan_0", "scores_0", "gan_1", "scores_1", "other_0"]


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ({"a": toy(out="x") | {"each": [0, 1]}}, r"stage 'a': each: expected a mapping, found \[0, 1\]"),
        ({"a": toy(out="x") | {"each": {"seed": []}}}, "stage 'a': each: seed: expected one or more different values"),
        ({"a": toy(out="x") | {"each": {"seed": " "}}}, "stage 'a': each: seed: .* found none"),
        ({"a": toy(out="x") | {"each": {"seed": [1, "1"]}}}, "stage 'a': each: seed: .* different values, found 1 1"),
        ({"a": toy(out="x") | {"each": {"seed": [[1]]}}}, r"stage 'a': each: seed: expected one value, found \[1\]"),
        ({"a": toy(out="x") | {"each": {"seed": {"0": 3}}}}, "each: seed: 0: expected a mapping of further names"),
        ({"a": toy(out="x") | {"each": {"root": [1]}}}, "each: root: 'root' has a value already"),
        ({"a": toy(out="x") | {"each": {"s": {"0": {"s": 1}}}}}, r"each: s: 's' has a value already \('0'\)"),
        ({"a": toy(out="x") | {"each": {"s": ["${sed}"]}}}, r"stage 'a': each: s: \$\{sed\}"),
        ({"a": toy(out="${sed}") | {"each": {"seed": [0]}}}, r"stage 'a_0': out: \$\{sed\}: did you mean 'seed'\?"),
        ({"a": toy(out="x${s}") | {"each": {"s": ["/"]}}}, "stage 'a_/': expected a name of letters"),
        ({"a": toy(out="x") | {"each": {"s": [0, 1]}}}, "stages 'a_0' and 'a_1' both write x"),
        ({"a": toy(out="x") | {"each": {"s": [0]}}, "a_0": toy(out="y")}, "two stages are called 'a_0'"),
        (
            {
                "a": toy(out="x${s}") | {"each": {"s": [0]}},
                "b": toy(["a"], out="y${s}") | {"each": {"s": [0, 1]}},
            },
            "stage 'b_1': needs 'a', which has no copy with s=1",
        ),
        ({"a": toy(["${b}"], out="x")}, r"stage 'a': needs: \$\{b\}: did you mean|expected one of"),
    ],
)
def test_a_repeat_that_makes_no_sense_is_refused(tmp_path: Path, stages: dict, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as refusal:
        pipeline(tmp_path, stages)
    assert "\n" not in str(refusal.value) and "pipeline.yaml" in str(refusal.value)


# --- a part of a pipeline

STAGES = {
    "data": toy(out="${root}/data"),
    "gan": toy(["data"], out="${root}/gan${seed}") | {"each": {"seed": [0, 1]}},
    "scores": toy(["gan"], out="${root}/scores${seed}") | {"each": {"seed": [0, 1]}},
    "report": toy(["scores"], out="${root}/report"),
}


def test_a_part_is_what_matches_and_what_that_needs(tmp_path: Path) -> None:
    found = pipeline(tmp_path, STAGES)
    assert list(found.part("scores_1").stages) == ["data", "gan_1", "scores_1"]
    assert list(found.part("gan_*").stages) == ["data", "gan_0", "gan_1"]
    assert list(found.part("scores_[1-9] gan_0").stages) == ["data", "gan_0", "gan_1", "scores_1"]
    assert found.part("") == found.part("report") == found
    with pytest.raises(UserError, match=r"only: no stage of pipeline matches 'scores': did you mean 'scores_1'\?"):
        found.part("gan_* scores")


def test_a_pipeline_runs_part_by_part_and_its_plan_stays_whole(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = tmp_path / "root"
    words = [f"pipeline={write(tmp_path / 'p.yaml', STAGES)}", f"root={root}"]
    assert submit([*words, "only=scores_1"]) == 0
    assert lines(tmp_path, "scores1") == ["x"] and not (root / "gan0").exists()
    assert '"report"' in (root / "pipeline.json").read_text()
    assert submit([*words, "only=sores_1"]) == 2
    capsys.readouterr()
    assert submit(words) == 0
    printed = capsys.readouterr().out
    assert [f"skipped  {name}  " in printed for name in ("data", "gan_1", "scores_1", "gan_0")] == [True] * 3 + [False]
    assert lines(tmp_path, "gan1") == ["x"], "a finished stage was run again"


def test_a_finished_stage_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = pipeline(tmp_path, STAGES).part("gan_*")
    run_alone(Local(found, tmp_path / "root", parallel=2))

    def refuse(*words: object, **keys: object) -> None:
        raise AssertionError("started a process")

    monkeypatch.setattr("subprocess.Popen", refuse)
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", refuse)
    again = Local(found, tmp_path / "root", parallel=2)
    run_alone(again)
    assert set(states(again).values()) == {"skipped"}
