import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster_jobs.cli.exit_record import PATIENCE
from cluster_jobs.core.files import read_json, write_json
from tests.cluster_jobs.core.test_lock import end, holder
from tests.cluster_jobs.toy_stage import main
from tests.processes import Ended, fork_ranks, launch

LAST_BREATH = "tests.cluster_jobs.training.toy_last_breath"
TRAIN = "tests.cluster_jobs.toy_train"


def as_a_rank(*words: str, ranks: int) -> Ended:
    return launch(LAST_BREATH, *words, env={"WORLD_SIZE": str(ranks), "RANK": "1" if ranks > 1 else "0"})


def test_a_rank_that_is_done_does_not_fail_while_the_interpreter_goes_down() -> None:
    ended = as_a_rank(ranks=2)
    assert ended.code == 0, ended.output
    assert ended.output == "still in the buffercleaned up\n"
    assert as_a_rank(ranks=1).code == -signal.SIGABRT  # the toy does abort when it is let


def test_rank_0_speaks_first_and_another_rank_says_what_only_it_met(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The launcher ends all ranks when the first fails, so rank 1 waits before it says its error and ends."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    for rank, seconds in (("0", []), ("1", [PATIENCE])):
        waits.clear()
        monkeypatch.setenv("RANK", rank)
        assert main(["sed=1"]) == 2 and waits == seconds
        assert capsys.readouterr().err.count("error: ") == 1


def test_a_command_of_one_process_is_refused_in_several() -> None:
    ended = launch("cluster_jobs.pack", "source=digits", "out=nowhere", env={"WORLD_SIZE": "2", "RANK": "0"})
    assert ended.code == 2 and ended.output.count("\n") == 1
    assert "works in one process but was launched in 2" in ended.output


@pytest.mark.parametrize(("words", "code"), [(("sed=1",), 2), (("--help",), 0)])
def test_a_rank_that_ends_early_ends_with_its_code(words: Sequence[str], code: int) -> None:
    assert as_a_rank(*words, ranks=2).code == code


def test_no_rank_of_a_refused_launch_touches_the_record_of_the_live_run(tmp_path: Path) -> None:
    live = holder(tmp_path)
    write_json(tmp_path / "exit.json", {"state": "running", "code": None, "message": "", "command": "the live one"})
    before = (tmp_path / "exit.json").read_bytes()
    ends = fork_ranks(tmp_path / "log", TRAIN, "sed=1", f"run.dir={tmp_path}")
    assert [ended.code for ended in ends] == [2, 2]
    assert (tmp_path / "exit.json").read_bytes() == before
    end(live)


def test_another_rank_says_in_the_record_of_its_own_run_why_it_failed(tiny_directory: Path, tmp_path: Path) -> None:
    """Rank 0, which holds the lock, only loses its connection."""
    (tmp_path / "run/order-1.txt").mkdir(parents=True)  # rank 1 cannot write its notes
    keys = (f"data={tiny_directory}", f"run.dir={tmp_path / 'run'}", "batch=4", "total_nimg=40", "threads=1")
    ends = fork_ranks(tmp_path / "log", TRAIN, *keys)
    assert [ended.code for ended in ends] == [1, 1]
    record = read_json(tmp_path / "run/exit.json")
    assert (record["state"], record["code"]) == ("failed", 1)
    assert record["message"].startswith("IsADirectoryError: ") and "order-1.txt" in record["message"]
