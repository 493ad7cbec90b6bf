import signal
from collections.abc import Sequence

import pytest

from tests.processes import Ended, launch

LAST_BREATH = "tests.cluster_jobs.toy_last_breath"


def as_a_rank(*words: str, ranks: int) -> Ended:
    return launch(LAST_BREATH, *words, env={"WORLD_SIZE": str(ranks), "RANK": "1" if ranks > 1 else "0"})


def test_a_rank_that_is_done_does_not_fail_while_the_interpreter_goes_down() -> None:
    ended = as_a_rank(ranks=2)
    assert ended.code == 0, ended.output
    assert ended.output == "still in the buffercleaned up\n"
    assert as_a_rank(ranks=1).code == -signal.SIGABRT  # the toy does abort when it is let


@pytest.mark.parametrize(("words", "code"), [(("sed=1",), 2), (("--help",), 0)])
def test_a_rank_that_ends_early_ends_with_its_code(words: Sequence[str], code: int) -> None:
    assert as_a_rank(*words, ranks=2).code == code
