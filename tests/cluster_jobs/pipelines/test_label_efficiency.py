"""The study's pipeline: equal conditions for every row, and the rows and paths that docs and slices rely on."""

from pathlib import Path

from cluster_jobs.pipelines.pipeline import Stage, load

STAGES = load("label_efficiency", "R").stages
GANS = [stage for stage in STAGES.values() if stage.module == "s3gan.train"]
SCORES = {stage.needs[0]: stage for name, stage in STAGES.items() if name.startswith("scores_")}


def row_of(stage: Stage) -> str:
    return Path(stage.arguments["run.dir"]).parts[-2]


def test_the_first_seven_rows_come_first_with_three_seeds_each() -> None:
    rows = list(dict.fromkeys(row_of(stage) for stage in GANS))
    assert rows[:7] == [
        "single_label",
        "clustering_ss",
        "s2gan_10",
        "s3gan_10",
        "s3gan_co_10",
        "s3gan_20",
        "supervised",
    ]
    assert [stage.arguments["run.dir"] for stage in GANS] == [
        f"R/gan/{row}/{seed}" for row in rows for seed in (0, 1, 2)
    ]


def test_rows_differ_in_their_method_and_labels_and_in_nothing_else() -> None:
    own = ("method", "labels", "seed", "run.dir")
    shared = [{key: value for key, value in stage.arguments.items() if key not in own} for stage in GANS]
    assert all(arguments == shared[0] for arguments in shared)
    assert shared[0]["total_nimg"] == "192000" and shared[0]["network"] == "biggan_light"
    judged = [
        {key: value for key, value in stage.arguments.items() if key not in ("run", "out", "budget")}
        for stage in SCORES.values()
    ]
    assert all(arguments == judged[0] for arguments in judged)


def test_every_gan_is_scored_on_its_own_and_reads_the_table_that_it_waits_for() -> None:
    for stage in GANS:
        row, seed = row_of(stage), stage.arguments["seed"]
        assert stage.arguments["labels"] == f"R/labels/{stage.needs[0]}.parquet"
        scored = SCORES[stage.name]
        assert scored.name == f"scores_{row}_{seed}"
        assert (scored.arguments["run"], scored.arguments["out"]) == (
            stage.arguments["run.dir"],
            f"R/scores/{row}/{seed}",
        )
        assert scored.arguments["budget"] == f"R/labels/{scored.needs[1]}.parquet"


def test_another_seed_adds_stages_and_changes_no_command() -> None:
    more = load("label_efficiency", "R", "seeds='0 1 2 3'").stages
    assert {name: stage.command for name, stage in more.items() if name in STAGES} == {
        name: stage.command for name, stage in STAGES.items()
    }
    assert len(more) == len(STAGES) + 2 * len(GANS) // 3


def test_a_slice_is_a_row_with_all_that_it_needs() -> None:
    part = load("label_efficiency", "R").part("scores_s3gan_co_10_2")
    assert list(part.stages) == ["data", "judge", "budget_10", "gan_s3gan_co_10_2", "scores_s3gan_co_10_2"]
