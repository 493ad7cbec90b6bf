"""A run directory belongs to one live process, and to nobody once that process is gone."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster_jobs.core import lock
from cluster_jobs.core.errors import UserError
from tests.processes import ROOT

HOLD = """
import os, sys, time
from pathlib import Path
from cluster_jobs.core import lock
lock.take(Path(sys.argv[1]))
{more}
print("taken", flush=True)
time.sleep(60)
"""

LOOK = """
import sys
from pathlib import Path
from cluster_jobs.core import lock
print(lock.used_by_another(Path(sys.argv[1])))
"""

LOOK_OFTEN = """
import sys, time
from pathlib import Path
from cluster_jobs.core import lock
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
print(any(lock.used_by_another(Path(sys.argv[1])) for _ in range(20_000)))
"""


def holder(directory: Path, more: str = "") -> subprocess.Popen[str]:
    """A process that holds the lock of a directory."""
    command = [sys.executable, "-c", HOLD.format(more=more), str(directory)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "taken\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_second_process_is_refused_with_host_and_pid_of_the_first(tmp_path: Path) -> None:
    first = holder(tmp_path)
    assert lock.used_by_another(tmp_path)
    with pytest.raises(UserError) as refusal:
        lock.take(tmp_path)
    assert str(refusal.value) == (
        f"run.dir={str(tmp_path)!r} is in use by process {first.pid} on {socket.gethostname()}"
    )
    end(first)


def test_a_killed_process_holds_nothing_not_even_through_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forked child inherits every descriptor and outlives its parent, as an orphaned reader process does."""
    more = "child = os.fork()\nif not child: time.sleep(60)\nPath(sys.argv[1], 'child').write_text(str(child))"
    first = holder(tmp_path, more)
    child = int((tmp_path / "child").read_text())
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert Path(f"/proc/{child}").exists() and not lock.used_by_another(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(lock.time, "sleep", lambda seconds: pytest.fail("it waited"))
        lock.take(tmp_path)
    os.kill(child, signal.SIGKILL)
    end(first)


def test_a_process_that_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    first = holder(tmp_path, "import threading; threading.Timer(0.7, os._exit, [0]).start()")
    lock.take(tmp_path)
    end(first)
    assert (tmp_path / "lock").read_text() == f"{socket.gethostname()} {os.getpid()}\n"


def test_one_of_another_machine_is_waited_for_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SAME_MACHINE_SECONDS", 0.0)
    monkeypatch.setattr(lock, "OTHER_MACHINE_SECONDS", 0.6)
    first = holder(tmp_path)
    (tmp_path / "lock").write_text("elsewhere 17\n")  # in place: the file keeps its lock
    begin = time.monotonic()
    with pytest.raises(UserError, match="in use by process 17 on elsewhere"):
        lock.take(tmp_path)
    assert time.monotonic() - begin > 0.6
    end(first)


def test_the_own_lock_is_no_hindrance_and_looking_at_it_does_not_lose_it(tmp_path: Path) -> None:
    lock.take(tmp_path)
    lock.take(tmp_path)
    assert not lock.used_by_another(tmp_path)
    seen = subprocess.run([sys.executable, "-c", LOOK, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert seen.stdout == "True\n"


def test_a_directory_where_no_run_was_is_free(tmp_path: Path) -> None:
    assert not lock.used_by_another(tmp_path) and not lock.used_by_another(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_processes_that_look_at_the_same_time_do_not_take_each_other_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("elsewhere 17\n")
    command = [sys.executable, "-c", LOOK_OFTEN, str(tmp_path), str(time.time() + 2)]
    looking = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in looking] == ["False\n"] * 2


def test_another_rank_has_a_part_in_the_run_that_it_joined_and_in_no_later_one(tmp_path: Path) -> None:
    """A launcher may die and orphan its ranks: one that hangs can outlive its main process, and see the next run."""
    first = holder(tmp_path)
    assert lock.used_by_another(tmp_path)
    lock.join(tmp_path)
    assert not lock.used_by_another(tmp_path)
    end(first)
    assert not lock.used_by_another(tmp_path)
    second = holder(tmp_path)
    assert lock.used_by_another(tmp_path)
    end(second)
