"""What is made of the nodes' answers, and real clocks over TCP."""

import math
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster_jobs.diagnostics import node_probe
from cluster_jobs.diagnostics.allocation import (
    Ended,
    allocation,
    answered,
    clocks,
    names,
    requeue,
    run,
    shared_by_all,
    slurm,
    slurm_version,
    versions,
)
from cluster_jobs.diagnostics.clocks import ClockServer


def answer(node: str, **changes: Any) -> dict[str, Any]:
    sound = {"node": node, "unresolved": [], "shared": "", "clock": "", "gpus": 0, "versions": {"torch": "2.13.0"}}
    return sound | changes


def result(code: int | None, output: str = "", error: str = "") -> Ended:
    return Ended(code, output, error)


# --- a command with a time limit


def test_a_command_that_takes_too_long_is_ended_and_what_it_said_is_kept() -> None:
    program = "import time; print('begun', flush=True); time.sleep(60)"
    begin = time.monotonic()
    ended = run([sys.executable, "-c", program], 3)
    assert ended.code is None and ended.output == "begun\n" and time.monotonic() - begin < 30


def test_the_reason_of_a_failure_is_its_error_in_one_line() -> None:
    program = "import sys; print('warming up', file=sys.stderr); raise ValueError('no such  thing')"
    ended = run([sys.executable, "-c", program], 60)
    assert ended.code == 1 and ended.reason == "ValueError: no such thing"
    assert result(3).reason == "exit code 3" and result(1, "", "srun: error: no\n").reason == "srun: error: no"


# --- outside of an allocation


def test_without_slurms_variables_there_is_no_allocation() -> None:
    assert allocation({}) is None and allocation({"SLURM_JOB_ID": "7"}) is None


def test_a_job_whose_nodes_cannot_be_asked_for_is_a_warning() -> None:
    (found,) = slurm(None, "7")
    assert found.level == "warn" and "job 7 runs here, but scontrol is missing or does not know it" in found.finding
    assert not any("job 7" in item.finding for item in slurm(None, None))


@pytest.mark.parametrize(
    ("shown", "level", "words"),
    [
        (result(0, "slurm-wlm 22.05.8\n"), "ok", "22.05.8"),
        (result(0, "slurm 19.05.5\n"), "warn", "older than 20.11"),
        (result(1, "", "sinfo: fatal: no slurm.conf\n"), "warn", "no slurm.conf"),
    ],
)
def test_the_version_of_slurm_is_judged(shown: Ended, level: str, words: str) -> None:
    found = slurm_version(shown)
    assert found.level == level and words in found.finding


@pytest.mark.parametrize(
    ("shown", "level"),
    [
        (result(0, "JobId=7 Requeue=1 Restarts=0\n"), "ok"),
        (result(0, "JobId=7 Requeue=0 Restarts=0\n"), "warn"),
        (result(1, "", "slurm_load_jobs error: Invalid job id specified\n"), "warn"),
    ],
)
def test_a_job_that_cannot_be_requeued_is_a_warning(shown: Ended, level: str) -> None:
    assert requeue(shown).level == level


# --- the nodes' answers


def test_a_silent_node_is_named_with_the_reason() -> None:
    nodes, both = ("n1", "n2"), {"n1": answer("n1"), "n2": answer("n2")}
    assert answered(nodes, both, result(0), 9).level == "ok"
    found = answered(nodes, {"n1": answer("n1")}, result(None), 9)
    assert found.level == "fail" and found.finding == "no answer from n2: nothing within 9 s"
    found = answered(nodes, {}, result(1, "", "srun: error: Unable to launch\n"), 9)
    assert found.finding == "no answer from n1, n2: srun: error: Unable to launch"


def test_names_that_do_not_resolve_fail_unless_the_ranks_meet_elsewhere() -> None:
    assert names([answer("n1"), answer("n2")], "n1").level == "ok"
    answers = [answer("n1"), answer("n2", unresolved=["n1"])]
    found = names(answers, "n1")
    assert found.level == "fail" and "n1 on n2" in found.finding and "MASTER_ADDR" in found.remedy
    assert names(answers, "10.0.0.1").level == "warn"


@pytest.mark.parametrize(
    ("offset", "level"), [(0.002, "ok"), (-0.9, "ok"), (1.5, "warn"), (-3.0, "warn"), (61.0, "fail"), (-3600.0, "fail")]
)
def test_the_largest_difference_of_clocks_decides(offset: float, level: str) -> None:
    found = clocks([answer("n1"), answer("n2")], {"n1": 0.0, "n2": offset}, "n1")
    assert found.level == level and f"n2 is {offset * 1000:+,.1f} ms" in found.finding


def test_a_node_that_cannot_connect_to_the_head_fails() -> None:
    found = clocks([answer("n1"), answer("n2", clock="Connection refused")], {"n1": 0.0}, "head")
    assert found.level == "fail" and "no TCP connection to head from n2 (Connection refused)" in found.finding


def test_nodes_with_other_packages_fail() -> None:
    assert versions([answer("n1"), answer("n2")]).level == "ok"
    found = versions([answer("n1"), answer("n2", versions={"torch": "2.12.0"})])
    assert found.level == "fail" and found.finding == "n2 has torch 2.12.0 (on n1 2.13.0)"


def test_a_directory_that_not_every_node_shares_fails() -> None:
    answers = [answer("n1"), answer("n2"), answer("n3", shared="Read-only file system")]
    found = shared_by_all("/data", answers, {"n1": "nonce", "n2": "", "n3": ""})
    assert found.level == "fail"
    assert "n3 cannot write (Read-only file system), n2 wrote a file that is not seen here" in found.finding
    assert shared_by_all("/data", [answer("n1")], {"n1": "nonce"}).level == "ok"


# --- a probe and the clock server as they are


def test_a_probe_writes_its_file_and_has_its_clock_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    with ClockServer("nonce") as server:
        found = node_probe.probe("nonce", "127.0.0.1", server.port, str(tmp_path), ["localhost", "no-such.invalid"])
        deadline = time.monotonic() + 120
        while not server.offsets and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (found["node"], found["unresolved"], found["shared"], found["clock"]) == ("n7", ["no-such.invalid"], "", "")
    assert (tmp_path / "nonce.n7").read_text() == "nonce"
    assert abs(server.offsets["n7"]) < 1


def test_a_clock_that_is_an_hour_behind_is_measured_and_a_stranger_is_passed_over() -> None:
    with ClockServer("nonce") as server:
        with socket.create_connection(("127.0.0.1", server.port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with socket.create_connection(("127.0.0.1", server.port)) as node, node.makefile("rw") as lines:
            print("nonce slow", file=lines, flush=True)
            while lines.readline():
                print(repr(time.time() - 3600), file=lines, flush=True)
    assert list(server.offsets) == ["slow"] and math.isclose(server.offsets["slow"], -3600, abs_tol=1)


def test_a_probe_says_what_it_could_not_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        found = node_probe.probe("nonce", "127.0.0.1", closed.getsockname()[1], str(tmp_path / "file"), [])
    assert found["shared"] == "Not a directory" and found["clock"] == "Connection refused"
