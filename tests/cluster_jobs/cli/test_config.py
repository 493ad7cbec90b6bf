import json
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest
import yaml

from cluster_jobs.cli.config import (
    MISSING,
    CommandKeys,
    Precision,
    RunKeys,
    TrainKeys,
    command,
    group,
    help_text,
    option,
    parse,
)
from cluster_jobs.cli.config import to_dict as plain
from cluster_jobs.core.errors import DamagedSample, Preempted, UserError
from tests.cluster_jobs.tiny import files_below

CONF = "tests.cluster_jobs.toy_conf"
HOSTILE_PATHS = [
    "/data/with spaces/and  more",
    "/données/naïve Übung/図",
    "/a=b=c/d==",
    """/it's/"quoted"/`ticks`""",
    "/[brackets]/{braces}/(round)",
    "/comma,separated,/x:y",
    "/${x}/${oc.env:HOME}",
    "/broken/${",
    "/back\\slash/$HOME/~/*?",
    " leading and trailing ",
    "null",
    "1e3",
]


class Method(Enum):
    plain = "plain"
    fancy = "fancy"


@dataclass
class NetworkKeys:
    width: int = option(32, "channels of the first layer")


@dataclass
class Toy(TrainKeys):
    """A schema with every kind of key."""

    data: str = option(MISSING, "shards", path=True)
    method: Method = option(Method.plain, "how")
    rate: float = option(1e-3, "learning rate")
    note: str = option("", "free text")
    sizes: list[int] = field(default_factory=lambda: [1, 2], metadata={"help": "some sizes", "path": False})
    network: NetworkKeys = group(NetworkKeys, "the network")


def toy(*words: str) -> Toy:
    return parse(Toy, ["run.dir=/run", "data=/data", *words], CONF)


def refusal(*words: str) -> str:
    """The one line that a command line is refused with."""
    with pytest.raises(UserError) as error:
        toy(*words)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_words_become_typed_values() -> None:
    config = toy("batch=8", "rate=1e-4", "method=fancy", "precision=bf16", "window=all", "network.width=7", "sizes=[3]")
    assert (config.batch, config.rate, config.method, config.precision) == (8, 1e-4, Method.fancy, Precision.bf16)
    assert (config.window, config.network.width, config.sizes, config.run) == ("all", 7, [3], RunKeys("/run"))


def test_a_number_of_blocks_stays_text() -> None:
    assert toy("window=16").window == "16"


def test_the_last_of_two_equal_keys_counts() -> None:
    assert parse(Toy, ["run.dir=/a", "data=/d", "run.dir=/b", "batch=1", "batch=2"], CONF).run.dir == "/b"


@pytest.mark.parametrize("paths", [HOSTILE_PATHS[i : i + 3] for i in range(0, len(HOSTILE_PATHS), 3)])
def test_path_values_are_taken_literally(paths: list[str]) -> None:
    config = parse(Toy, [f"run.dir={paths[0]}", f"data={paths[1]}", f"init_from={paths[2]}"], CONF)
    assert [config.run.dir, config.data, config.init_from] == paths


def test_an_unknown_key_names_the_nearest_one() -> None:
    assert "'bacth'" in refusal("bacth=8") and "did you mean 'batch'?" in refusal("bacth=8")
    assert "did you mean 'network.width'?" in refusal("network.widht=8")
    assert "did you mean 'run.dir'?" in refusal("run.dri=8")
    everything = refusal("zzz=1")
    assert "expected one of" in everything and "checkpoint_nimg" in everything


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("batch=eight", "an integer"),
        ("batch=1.5", "an integer"),
        ("batch=", "an integer"),
        ("batch=null", "an integer"),
        ("batch=0x10", "an integer"),
        ("batch=${nowhere}", "an integer"),
        ("batch=[1", "an integer"),
        ("rate=fast", "a number"),
        ("validate=maybe", "true or false"),
        ("window={a: 1}", "text"),
        ("note='open", "text"),
        ("note=a:{", "text"),
        ("sizes=[a]", "list[int]"),
        ("network.width=wide", "an integer"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(word: str, expected: str) -> None:
    assert refusal("seed=3", word, "threads=1") == f"{word} on the command line: expected {expected}"


def test_a_wrong_choice_names_the_nearest_one() -> None:
    assert refusal("method=fanzy") == (
        "method=fanzy on the command line: expected one of plain, fancy; did you mean 'fancy'?"
    )
    assert refusal("precision=fp64").startswith("precision=fp64 on the command line: expected one of no, bf16")


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, 0) for name in ("batch", "total_nimg", "log_nimg", "checkpoint_nimg", "sample_nimg", "eval_nimg")]
    + [("keep_last", 0), ("keep_best", -1), ("workers", -2), ("threads", -1)]
    + [("window", "0"), ("window", "some"), ("window", "")],
)
def test_a_number_out_of_range_is_refused(name: str, value: int | str) -> None:
    config = Toy(run=RunKeys("/run"), data="/data")
    config.check()
    setattr(config, name, value)
    with pytest.raises(UserError, match=f"^{name}={value}: expected "):
        config.check()


def test_a_word_that_is_no_override_is_refused() -> None:
    for word in ("batch", "~batch", "--verbose"):
        assert refusal(word) == f"{word!r} on the command line: expected key=value (--help lists the keys)"


def test_missing_required_keys_are_all_named() -> None:
    with pytest.raises(UserError, match=r"missing run\.dir=…, data=… \(--help"):
        parse(Toy, [], CONF)
    with pytest.raises(UserError, match=r"missing data=…"):
        parse(Toy, ["run.dir=/x"], CONF)


def test_an_empty_required_path_is_refused() -> None:
    with pytest.raises(UserError, match=r"run\.dir= on the command line: expected a value"):
        parse(Toy, ["run.dir=", "data=/d"], CONF)


def test_a_recipe_sets_keys_and_words_override_it() -> None:
    assert (toy("+recipe=small").batch, toy("+recipe=small").network.width) == (2, 4)
    assert toy("+recipe=small", "batch=3").batch == 3
    assert toy("batch=3", "+recipe=small").batch == 3


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    assert refusal("+recipe=smal") == "+recipe=smal on the command line: expected one of small"


def test_to_dict_holds_plain_values_that_yaml_gives_back() -> None:
    values = plain(toy("method=fancy", "rate=1e-5"))
    assert values["method"] == "fancy" and values["precision"] == "no" and values["run"] == {"dir": "/run"}
    assert yaml.safe_load(yaml.safe_dump(values)) == values
    assert json.loads(json.dumps(values)) == values


def test_help_lists_every_key_with_its_meaning() -> None:
    text = help_text(Toy, CONF, "toy")
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    names = set(plain(toy())) - {"run", "network"} | {"run.dir", "network.width", "+recipe=NAME"}
    assert set(lines) == names
    assert "learning rate [a number; default 0.001]" in lines["rate"]
    assert "required" in lines["data"] and "one of plain, fancy; default 'plain'" in lines["method"]
    assert "small" in lines["+recipe=NAME"]
    assert all("[" in line and len(line.split("[")[0].split()) > 1 for line in lines.values() if "recipe" not in line)


# --- the outcome of a command: exit code, exit.json, CLUSTER_JOBS_EXIT_FILE


@dataclass
class Ending(CommandKeys):
    """Ends as it is told to."""

    run: RunKeys = group(RunKeys, "where")
    how: str = option("done", "how to end")


@command(Ending, conf=CONF)
def end(config: Ending) -> None:
    if config.validate:
        return
    Path(config.run.dir).mkdir(parents=True, exist_ok=True)
    if config.how == "fail":
        raise UserError("the number is wrong")
    if config.how == "damaged":
        raise DamagedSample("000000/00000003 is no image")
    if config.how == "preempt":
        raise Preempted("stopped at 8 images")
    if config.how == "crash":
        raise ZeroDivisionError("a defect")


@pytest.fixture
def exit_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "stage exit.json"
    monkeypatch.setenv("CLUSTER_JOBS_EXIT_FILE", str(path))
    return path


@pytest.mark.parametrize(
    ("how", "state", "code", "message"),
    [
        ("done", "done", 0, ""),
        ("fail", "failed", 2, "the number is wrong"),
        ("preempt", "preempted", 75, "stopped at 8 images"),
    ],
)
def test_the_outcome_is_an_exit_code_and_two_records(
    tmp_path: Path, exit_file: Path, how: str, state: str, code: int, message: str
) -> None:
    assert end([f"run.dir={tmp_path}/r u n", f"how={how}"]) == code
    for file in (tmp_path / "r u n" / "exit.json", exit_file):
        record = json.loads(file.read_text())
        assert (record["state"], record["code"], record["message"]) == (state, code, message)
        assert record["command"] == f"python -m {__name__} 'run.dir={tmp_path}/r u n' how={how}"


def test_a_defect_is_recorded_and_raised(tmp_path: Path, exit_file: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        end([f"run.dir={tmp_path}/run", "how=crash"])
    assert json.loads(exit_file.read_text())["message"] == "ZeroDivisionError: a defect"
    assert json.loads(exit_file.read_text())["code"] == 1


def test_while_a_command_runs_its_record_says_so(tmp_path: Path, exit_file: Path) -> None:
    @command(Ending, conf=CONF)
    def look(config: Ending) -> None:
        assert json.loads(exit_file.read_text())["state"] == "running"

    assert look([f"run.dir={tmp_path}"]) == 0


def test_a_wrong_key_is_one_line_on_stderr_and_exit_code_2(
    tmp_path: Path, exit_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end([f"run.dir={tmp_path}/never", "hwo=done"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "did you mean 'how'?" in captured.err
    assert json.loads(exit_file.read_text())["state"] == "failed"
    assert not (tmp_path / "never").exists()


def test_another_rank_speaks_only_when_it_fails(
    tmp_path: Path, exit_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert end([f"run.dir={tmp_path}/run"]) == 0 and not exit_file.exists()
    assert end([f"run.dir={tmp_path}/run", "how=damaged"]) == 2
    assert "000000/00000003" in capsys.readouterr().err
    assert "000000/00000003" in json.loads(exit_file.read_text())["message"]


def test_the_first_failure_is_not_overwritten_by_a_rank_that_lost_its_connection(
    tmp_path: Path, exit_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @command(Ending, conf=CONF)
    def other_rank_fails(config: Ending) -> None:
        monkeypatch.setenv("RANK", "1")
        end([f"run.dir={tmp_path}", "how=damaged"])
        monkeypatch.setenv("RANK", "0")
        raise RuntimeError("connection closed by peer")

    with pytest.raises(RuntimeError):
        other_rank_fails([f"run.dir={tmp_path}"])
    assert json.loads(exit_file.read_text())["message"] == "000000/00000003 is no image"
    assert end([f"run.dir={tmp_path}"]) == 0
    assert json.loads(exit_file.read_text())["state"] == "done"


def test_a_record_that_cannot_be_written_does_not_hide_the_outcome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "exit.json").mkdir()
    assert end([f"run.dir={tmp_path}", "how=done"]) == 0
    assert "warning: cannot write" in capsys.readouterr().err
    assert end([f"run.dir={tmp_path}", "how=fail"]) == 2
    captured = capsys.readouterr().err.strip()
    assert captured.endswith("error: the number is wrong") and "\n" not in captured


@pytest.mark.parametrize("words", [[], ["threads=-1"], ["threads=many"], ["validate=yes"], ["bad=1"]])
def test_validate_touches_nothing_on_disk(tmp_path: Path, exit_file: Path, words: list[str]) -> None:
    end([f"run.dir={tmp_path}/run"])
    before = files_below(tmp_path)
    end([f"run.dir={tmp_path}/run", "validate=true", *words])
    end([f"run.dir={tmp_path}/other", "validate=true", *words])
    assert files_below(tmp_path) == before and not (tmp_path / "other").exists()


@pytest.mark.parametrize("path", HOSTILE_PATHS[2:8])
def test_validate_prints_the_composed_keys(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert end([f"run.dir={path}", "validate=true"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == {"seed": 0, "threads": 0, "validate": True, "run": {"dir": path}, "how": "done"}


def test_help_exits_with_zero_and_needs_no_other_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(["--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Ends as it is told to.") and f"-m {__name__} key=value" in text and "how to end" in text


def test_a_command_without_words_reads_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["end", f"run.dir={tmp_path}", "how=preempt"])
    assert end() == 75
