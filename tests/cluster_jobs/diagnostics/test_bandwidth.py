"""All-reduce between real processes, and what is made of their results."""

import json

import pytest

from cluster_jobs.diagnostics.allocation import Ended
from cluster_jobs.diagnostics.bandwidth import judge, on_this_machine


def line(rate: float, correct: bool = True) -> str:
    return "a prolog\n" + json.dumps({"world": 2, "correct": correct, "gigabytes_a_second": rate}) + "\n"


@pytest.mark.parametrize(
    ("backend", "ended", "level", "words"),
    [
        ("nccl", Ended(0, line(180.0), ""), "ok", "180.00 GB/s"),
        ("nccl", Ended(0, line(0.3), ""), "warn", "0.30 GB/s"),
        ("gloo", Ended(0, line(0.3), ""), "ok", "gloo between two: 0.30 GB/s"),
        ("gloo", Ended(0, line(0.3, correct=False), ""), "fail", "the sum is wrong"),
        ("gloo", Ended(1, "", "x\nRuntimeError: no route to host\nmore\n"), "fail", "RuntimeError: no route to host"),
        ("nccl", Ended(None, "", "hello\n"), "fail", "not finished within 9 s"),
    ],
)
def test_a_rate_a_wrong_sum_and_a_failure_are_told_apart(backend: str, ended: Ended, level: str, words: str) -> None:
    found = judge(backend, "two", ended, 9)
    assert found.level == level and words in found.finding and bool(found.remedy) == (level != "ok")


@pytest.mark.slow
def test_two_processes_of_this_machine_sum_over_gloo() -> None:
    found = on_this_machine(0, 0.5, 200)
    assert found.level in ("ok", "warn") and "gloo between 2 processes of this machine" in found.finding, found.line
    assert float(found.finding.split(": ")[1].split(" GB/s")[0]) > 0


@pytest.mark.slow
def test_processes_that_take_too_long_are_a_failure_and_leave_nothing_running() -> None:
    found = on_this_machine(0, 0.5, 0.2)
    assert found.level == "fail" and "not finished within 0.2 s" in found.finding
