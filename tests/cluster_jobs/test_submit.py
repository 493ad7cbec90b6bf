"""Pipelines: the graph is checked, commands are validated first, what is done is skipped, failures are shown."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from cluster_jobs.core.errors import Preempted, UserError
from cluster_jobs.core.files import read_json
from cluster_jobs.pipelines.display import tail
from cluster_jobs.pipelines.launch import launch_words
from cluster_jobs.pipelines.local import Local, StageFailed
from cluster_jobs.pipelines.pipeline import BUILT_IN, Pipeline, load
from cluster_jobs.pipelines.stage_records import locked
from cluster_jobs.submit import main as submit
from tests.processes import HANG_SECONDS

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def toy(needs: list[str] | None = None, **args: object) -> dict:
    return {"module": "tests.cluster_jobs.toy_stage", "args": args, "needs": needs or []}


def write(path: Path, stages: dict, **keys: object) -> str:
    path.write_text(yaml.safe_dump({"threads": 1, "stages": stages, **keys}, sort_keys=False))
    return str(path)


def pipeline(tmp_path: Path, stages: dict, variables: str = "", **keys: object) -> Pipeline:
    return load(write(tmp_path / "pipeline.yaml", stages, **keys), str(tmp_path / "root"), variables)


def run(tmp_path: Path, stages: dict, **keys: object) -> Local:
    local = Local(pipeline(tmp_path, stages, **keys), tmp_path / "root", parallel=2)
    run_alone(local)
    return local


def run_alone(local: Local) -> None:
    with locked(local.root) as lock:
        local.run(lock)


def lines(tmp_path: Path, name: str) -> list[str]:
    file = tmp_path / "root" / name
    return file.read_text().splitlines() if file.exists() else []


def states(local: Local) -> dict[str, str]:
    return {name: line.state for name, line in local.lines.items()}


# --- the graph


def test_values_are_filled_in_once_and_in_order(tmp_path: Path) -> None:
    stages = {"a": toy(out="${root}/a", text="${word} ${n} ${root} $HOME", seconds=0.5, flag=True)}
    found = pipeline(tmp_path, stages, variables="n=7", vars={"n": 3, "word": "<${n}>"}).stages["a"]
    root = tmp_path / "root"
    assert found.words == (f"out={root}/a", f"text=<7> 7 {root} $HOME", "seconds=0.5", "flag=true")


def test_stages_come_in_an_order_that_honours_their_needs(tmp_path: Path) -> None:
    stages = {"c": toy(["b"], out="c"), "b": toy(["a"], out="b"), "a": toy(out="a")}
    assert list(pipeline(tmp_path, stages).stages) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ({"a": toy(["bb"], out="1"), "b": toy(out="2")}, "needs 'bb': did you mean 'b'?"),
        ({"a": toy(["b"], out="1"), "b": toy(["a"], out="2")}, "circle"),
        ({"a": toy(out="x/y"), "b": toy(out="x//y")}, "stages 'a' and 'b' both write x/y"),
        ({"a": toy(out="x"), "b": toy(out="y", reads="x/z")}, "reads=x/z, which 'a' writes, without needing it"),
        ({"a": toy(out="${rot}/x")}, r"\$\{rot\}: did you mean 'root'?"),
        ({"a": toy(out=["x"])}, r"expected one value, found \['x'\]"),
        ({"a": {"modul": "m"}}, "unknown key 'modul': did you mean 'module'?"),
        ({"a": {"module": "os; rm"}}, "module: expected a module"),
        ({"a b": toy(out="x")}, "expected a name of letters"),
        ({"a": toy(out="x") | {"processes": 0}}, "processes: expected a whole number of at least 1, found 0"),
        ({}, "expected 'stages'"),
    ],
)
def test_a_pipeline_that_is_no_graph_is_refused(tmp_path: Path, stages: dict, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        pipeline(tmp_path, stages)


def test_an_unknown_pipeline_names_those_that_exist() -> None:
    with pytest.raises(UserError, match="pipeline=dmo: expected one of demo, imagenet128_10pct, label_efficiency"):
        load("dmo", "root")


def test_an_unknown_variable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'nimg'?"):
        pipeline(tmp_path, {"a": toy(out="x")}, variables="nim=3", vars={"nimg": 1})
    with pytest.raises(UserError, match="No closing quotation; expected name=value words"):
        pipeline(tmp_path, {"a": toy(out="x")}, variables="nimg='3", vars={"nimg": 1})


@pytest.mark.parametrize("name", sorted(path.stem for path in BUILT_IN.glob("*.yaml")))
def test_a_built_in_pipeline_is_a_graph_that_ends_in_its_report(name: str) -> None:
    stages = load(name, "root").stages
    assert list(stages)[-1] == "report"
    assert load(name, "root").before("report") == set(stages) - {"report"}


def test_several_processes_are_launched_with_every_choice_explicit(tmp_path: Path) -> None:
    stage = pipeline(tmp_path, {"a": toy(out="x") | {"processes": 2}}).stages["a"]
    words = launch_words(stage)
    assert words[:5] == ["accelerate", "launch", "--multi_gpu", "--num_processes", "2"]
    assert words[-3:] == ["-m", "tests.cluster_jobs.toy_stage", "out=x"]
    assert {"--num_machines", "--machine_rank", "--mixed_precision", "--dynamo_backend"} <= set(words)


# --- running


def test_a_pipeline_runs_what_is_needed_first_and_skips_what_is_done(tmp_path: Path) -> None:
    stages = {
        "a": toy(out="${root}/a b"),
        "b": toy(["a"], out="${root}/b", reads="${root}/a b", text='it\'s = "ü" [1,2]'),
    }
    assert states(run(tmp_path, stages)) == {"a": "done", "b": "done"}
    assert lines(tmp_path, "b") == ['it\'s = "ü" [1,2]']
    assert states(run(tmp_path, stages)) == {"a": "skipped", "b": "skipped"}
    assert lines(tmp_path, "a b") == ["x"], "a finished stage was run again"


def test_a_stage_has_its_threads_and_its_log(tmp_path: Path) -> None:
    run(tmp_path, {"a": toy(out="${root}/a") | {"threads": 3}})
    log = (tmp_path / "root/stages/a/log.txt").read_text().splitlines()
    assert log[0].startswith("$ OMP_NUM_THREADS=3 python -m tests.cluster_jobs.toy_stage out=")
    assert log[1] == "threads 3, processes 1"
    assert read_json(tmp_path / "root/stages/a/exit.json")["state"] == "done"
    assert read_json(tmp_path / "root/stages/a/stage.json")["lives"] == 1


@pytest.mark.slow
def test_what_follows_a_stage_that_ran_again_runs_again(tmp_path: Path) -> None:
    stages = {"a": toy(out="${root}/a"), "b": toy(["a"], out="${root}/b"), "c": toy(out="${root}/c")}
    run(tmp_path, stages)
    (tmp_path / "root/a").unlink()
    assert states(run(tmp_path, stages)) == {"a": "done", "b": "done", "c": "skipped"}


def test_a_finished_stage_with_another_command_is_refused_with_the_difference(tmp_path: Path) -> None:
    run(tmp_path, {"a": toy(out="${root}/a", text="one")})
    with pytest.raises(UserError, match=r"stage 'a' .* another command \(-text=one \+text=two\)"):
        run(tmp_path, {"a": toy(out="${root}/a", text="two")})


def test_nothing_starts_when_any_command_is_refused(tmp_path: Path) -> None:
    stages = {"a": toy(out="${root}/a"), "b": toy(["a"], out="${root}/b", seconds=-1), "c": toy(ot="${root}/c")}
    with pytest.raises(UserError) as refusal:
        run(tmp_path, stages)
    assert "stage 'b'" in str(refusal.value) and "expected a positive number" in str(refusal.value)
    assert "stage 'c'" in str(refusal.value) and "did you mean 'out'?" in str(refusal.value)
    assert lines(tmp_path, "a") == []


@pytest.mark.parametrize(
    ("fate", "code", "reason"),
    [
        ("user", 2, "this is the user's mistake"),
        pytest.param("crash", 1, "RuntimeError: this is a defect", marks=pytest.mark.slow),
        pytest.param("killed", -9, "ended without an exit record", marks=pytest.mark.slow),
        pytest.param("silent", 1, "ended without an exit record", marks=pytest.mark.slow),
    ],
)
def test_a_failure_shows_its_command_and_log_and_stops_the_rest(
    tmp_path: Path, fate: str, code: int, reason: str
) -> None:
    stages = {
        "bad": toy(out="${root}/bad", fate=fate, seconds=0.3),
        "long": toy(out="${root}/long", seconds=60),
        "after": toy(["bad"], out="${root}/after"),
    }
    local = Local(pipeline(tmp_path, stages), tmp_path / "root", parallel=2)
    with pytest.raises(StageFailed) as failure:
        run_alone(local)
    assert failure.value.code == code
    text = str(failure.value)
    assert reason in text and "| threads 1, processes 1" in text and f"fate={fate}" in text.splitlines()[-1]
    assert states(local) == {"bad": "failed", "long": "stopped", "after": "waiting"}
    assert lines(tmp_path, "long") == []


def test_a_preempted_stage_preempts_the_pipeline(tmp_path: Path) -> None:
    with pytest.raises(Preempted, match="stage 'a' was stopped"):
        run(tmp_path, {"a": toy(out="${root}/a", fate="preempted")})


@pytest.mark.parametrize("cluster", ["local", "slurm"])
def test_a_second_submit_is_refused_and_the_plan_of_the_first_stays(
    tmp_path: Path, cluster: str, capsys: pytest.CaptureFixture
) -> None:
    root = tmp_path / "root"
    words = [f"root={root}", f"cluster={cluster}"]
    with locked(root):
        (root / "pipeline.json").write_text("of the first")
        assert submit([f"pipeline={write(tmp_path / 'p.yaml', {'a': toy(out='${root}/a')})}", *words]) == 2
        message = capsys.readouterr().err
        assert "another submit" in message and message.count("\n") == 1
        assert (root / "pipeline.json").read_text() == "of the first"
        assert {path.name for path in root.iterdir()} == {".lock", "pipeline.json"}


def test_a_root_that_cannot_be_written_to_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    word = f"pipeline={write(tmp_path / 'p.yaml', {'a': toy(out='${root}/a')})}"
    assert submit([word, f"root={tmp_path / 'p.yaml' / 'root'}"]) == 2
    (tmp_path / "root/.lock").mkdir(parents=True)
    assert submit([word, f"root={tmp_path / 'root'}"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert f"cannot create the directory '{tmp_path}/p.yaml/root'" in first
    assert f"root='{tmp_path}/root': cannot write in it" in second


@pytest.mark.slow
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.cluster), signal.SIGTERM])
def test_a_signal_stops_the_stages_and_the_same_command_continues(tmp_path: Path, number: int) -> None:
    root = tmp_path / "root"
    stages = {"a": toy(out="${root}/a"), "b": toy(["a"], out="${root}/b")}
    words = [f"pipeline={write(tmp_path / 'p.yaml', stages)}", f"root={root}"]
    first = subprocess.Popen(
        [sys.executable, "-m", "cluster_jobs.submit", *words],
        env={**os.environ, "TOY_ENDLESS": f"{root}/b"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + HANG_SECONDS
    while not any("threads" in line for line in tail(root / "stages/b/log.txt", 5)):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    first.send_signal(number)
    printed = first.communicate(timeout=HANG_SECONDS)[0]
    assert first.returncode == 75 and "the same command continues" in printed
    assert lines(tmp_path, "b") == []
    assert submit(words) == 0
    assert lines(tmp_path, "a") == ["x"] and lines(tmp_path, "b") == ["x"]
    assert read_json(root / "stages/b/stage.json")["lives"] == 2


def test_exit_codes_and_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = tmp_path / "a root = 'é'"
    stages = {"a": toy(out="${root}/a", fate="${fate}")}
    words = [f"pipeline={write(tmp_path / 'p q.yaml', stages, vars={'fate': 'done'})}", f"root={root}"]
    assert submit([*words, "validate=true"]) == 0
    assert "OMP_NUM_THREADS=1 python -m tests.cluster_jobs.toy_stage" in capsys.readouterr().out
    assert not root.exists()
    for fate, code in (("user", 2), ("crash", 1)):
        with pytest.raises(SystemExit) as end:
            submit([*words, f"vars=fate={fate}"])
        assert end.value.code == code
    assert submit([*words, "cluster=slrm"]) == 2
    assert "expected one of local" in capsys.readouterr().err
    assert submit(words) == 0
    assert (root / "a").read_text() == "x\n"


@pytest.mark.slow
def test_two_processes_go_through_accelerate(tmp_path: Path) -> None:
    run(tmp_path, {"a": toy(out="${root}/a") | {"processes": 2}})
    log = (tmp_path / "root/stages/a/log.txt").read_text()
    assert log.count("threads 1, processes 2") == 2
    assert lines(tmp_path, "a") == ["x"]


# --- what is shown


def test_the_tail_of_a_log_is_what_a_terminal_would_show(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("first\n\x1b[32mgreen\x1b[0m\n 10 %\r 90 %\r\n\n")
    assert tail(log, 2) == ["green", " 90 %"]
    assert tail(tmp_path / "none", 2) == []


@pytest.mark.slow
def test_every_stage_of_the_imagenet_pipeline_is_accepted_by_its_command(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "images" / split / "fish").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / split / "fish" / "1.png")
    words = ["pipeline=imagenet128_10pct", f"root={tmp_path / 'root'}", f"vars=images={tmp_path / 'images'}"]
    assert submit([*words, "validate=true"]) == 0
    stages = load("imagenet128_10pct", "root").stages
    assert stages["s3gan"].resources.nodes == 8 and stages["pool"].resources.array == 16
