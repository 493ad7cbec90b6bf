import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_jobs.training import preemption
from cluster_jobs.training.preemption import StopFlag

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_nothing_stops_a_run_that_nobody_asked_to_stop(tmp_path: Path) -> None:
    flag = StopFlag(tmp_path)
    assert not any(flag.agreed() for _ in range(5))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_the_flag_and_does_nothing_else(tmp_path: Path, number: signal.Signals) -> None:
    flag = StopFlag(tmp_path)
    os.kill(os.getpid(), number)
    assert list(tmp_path.iterdir()) == []
    assert flag.agreed() and flag.agreed()


def test_a_stop_file_raises_the_flag_within_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now[0])
    flag = StopFlag(tmp_path)
    assert not flag.agreed()
    (tmp_path / "STOP").touch()
    now[0] = 0.5
    assert not flag.agreed()  # a stat a second, not a stat a step
    now[0] = 1.0
    assert flag.agreed()


def test_a_cleared_flag_leaves_no_stop_file_for_the_restarted_run(tmp_path: Path) -> None:
    (tmp_path / "STOP").touch()
    flag = StopFlag(tmp_path)
    assert flag.agreed()
    flag.clear()
    flag.clear()
    assert not (tmp_path / "STOP").exists() and not StopFlag(tmp_path).agreed()
