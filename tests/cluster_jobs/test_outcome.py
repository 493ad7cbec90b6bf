import signal
import time
from collections.abc import Sequence

import pytest

from cluster_jobs.outcome import PATIENCE
from tests.cluster_jobs.toy_stage import main
from tests.processes import Ended, launch

LAST_BREATH = "tests.cluster_jobs.toy_last_breath"


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
