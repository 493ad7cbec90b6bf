"""``python -m cluster_jobs.doctor`` from the outside, on this machine."""

import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from cluster_jobs.diagnostics.findings import fail, ok, show, warn
from cluster_jobs.doctor import guarded, main
from tests.processes import launch

OUTSIDE = {name: "" for name in os.environ if name.startswith("SLURM_")}


@pytest.mark.slow
def test_this_machine_is_examined_line_by_line_and_into_a_file(tiny_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    words = [f"data={tiny_directory}", f"shared={tmp_path / 'shared'}", f"json={tmp_path / 'a=b.json'}", "seconds=0.3"]
    ended = launch("cluster_jobs.doctor", *words, env=OUTSIDE, timeout=280)
    assert ended.code == 0, ended.output
    lines = [text for text in ended.output.splitlines() if text[:4].strip() in ("ok", "warn", "fail")]
    found = json.loads((tmp_path / "a=b.json").read_text())
    assert len(lines) == len(found) > 15
    for text, item in zip(lines, found, strict=True):
        assert text.startswith(item["level"]) and item["subject"] in text and item["finding"] in text
        assert bool(item["remedy"]) == (item["level"] != "ok") and item["remedy"] in text
    by_subject = {item["subject"]: item for item in found}
    assert by_subject["nodes"]["finding"] == "not inside a Slurm allocation, so not checked"
    assert "gloo between 2 processes" in by_subject["all-reduce"]["finding"]
    assert "images/s" in by_subject["read rate"]["finding"]
    assert list((tmp_path / "shared").iterdir()) == []


@pytest.mark.slow
def test_a_failed_check_is_exit_code_2_and_one_line_that_counts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / ".cache/huggingface/accelerate").mkdir(parents=True)
    (tmp_path / ".cache/huggingface/accelerate/default_config.yaml").write_text("num_processes: 8\n")
    environment = OUTSIDE | {"HOME": str(tmp_path), "HF_HOME": "", "XDG_CACHE_HOME": ""}
    words = [f"shared={tmp_path / 'file'}", f"data={tmp_path}", "seconds=0.3"]
    ended = launch("cluster_jobs.doctor", *words, env=environment, timeout=280)
    assert ended.code == 2
    assert ended.output.splitlines()[-1].endswith("checks failed: shared directory, shards")
    assert ": error: 2 of " in ended.output.splitlines()[-1]
    assert "warn  accelerate config" in ended.output and "num_processes=8" in ended.output


def test_wrong_keys_are_one_line_and_validate_examines_nothing(capsys: pytest.CaptureFixture) -> None:
    assert main(["seconds=0"]) == 2
    assert "seconds=0.0: expected more than 0" in capsys.readouterr().err
    assert main(["shard=x"]) == 2
    assert "did you mean 'shared'" in capsys.readouterr().err
    assert main(["validate=true"]) == 0
    assert "timeout: 120.0" in capsys.readouterr().out


def test_a_check_that_breaks_does_not_hide_the_others() -> None:
    def broken() -> list:
        raise ZeroDivisionError("not\nforeseen")

    (found,) = guarded("clock", broken)
    assert found.level == "warn" and found.finding == "could not be checked (ZeroDivisionError: not foreseen)"


def test_a_terminal_gets_a_table_and_a_log_gets_lines(capsys: pytest.CaptureFixture) -> None:
    found = [ok("cpu", "8 [bold]cores[/]"), warn("disk", "small", "buy one"), fail("net", "none", "plug it in")]
    terminal = Console(force_terminal=True, width=100, record=True)
    assert show(iter(found), terminal) == found
    table = terminal.export_text()
    assert "8 [bold]cores[/]" in table and "plug it in" in table and "─" in table
    capsys.readouterr()
    assert show(iter(found), Console(force_terminal=False)) == found
    assert capsys.readouterr().out.splitlines() == [
        "ok    cpu: 8 [bold]cores[/]",
        "warn  disk: small; buy one",
        "fail  net: none; plug it in",
    ]
