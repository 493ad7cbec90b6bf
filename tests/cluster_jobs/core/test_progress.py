import itertools

import pytest

from cluster_jobs.core import progress


def test_a_duration_is_minutes_and_seconds_or_hours_and_minutes() -> None:
    assert [progress.duration(seconds) for seconds in (0, 65.9, 7_620)] == ["0m00s", "1m05s", "2h07m"]


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = itertools.count(0, 20)  # an item takes 20 seconds
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    assert list(progress.track(range(4), 35, "images", "features", 10)) == [0, 1, 2, 3]
    assert capsys.readouterr().err.splitlines() == [
        "features: 20/35 images  0 images/s  0m30s left",
        "features: 35 images in 100.0 s (0 images/s)",
    ]
