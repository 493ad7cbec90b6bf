"""``verify`` goes on where it was, after repairs and kills, and workers give one list."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster_jobs.verify import main
from tests.cluster_jobs.tiny import write_tiny_shards
from tests.cluster_jobs.verification.verifying import flip, found, member, verify
from tests.processes import HANG_SECONDS, ROOT


def test_after_a_repair_only_what_changed_is_checked_again(
    tiny_directory: Path, copied: Path, capsys: pytest.CaptureFixture
) -> None:
    (copied / "000001.tar").unlink()
    assert verify(copied) == 2
    capsys.readouterr()
    shutil.copy(tiny_directory / "000001.tar", copied)
    assert verify(copied) == 0
    captured = capsys.readouterr()
    assert "2 of 3 shards were verified before" in captured.out and "verify: 1 shards" in captured.err
    assert found(copied) == {}


def test_another_index_is_checked_from_the_start(copied: Path, capsys: pytest.CaptureFixture) -> None:
    assert verify(copied) == 0
    os.utime(copied / "labels.bin", ns=(1, 1))
    assert verify(copied) == 0
    assert "verified before" not in capsys.readouterr().out


def test_a_record_that_is_in_use_or_damaged_is_one_clear_line(copied: Path, capsys: pytest.CaptureFixture) -> None:
    assert verify(copied) == 0
    state = copied / "verify.json.state"
    capsys.readouterr()
    with open(state) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert verify(copied) == 2
    error = capsys.readouterr().err
    assert "is being written by another verify" in error and error.count("\n") == 1
    lines = state.read_bytes().splitlines(keepends=True)
    state.write_bytes(b"".join([lines[0], b"\0" * 20 + b"\n", *lines[2:]]))
    assert verify(copied) == 2
    assert "fresh=true" in capsys.readouterr().err
    assert verify(copied, "fresh=true") == 0


@pytest.mark.slow
def test_two_workers_give_the_same_list_as_one(tmp_path: Path) -> None:
    data = write_tiny_shards(tmp_path / "data" / "train", (5,) * 30)
    write_tiny_shards(tmp_path / "data" / "test", (4,) * 6)
    for number in range(0, 30, 3):
        path = data / f"{number:06d}.tar"
        flip(path, member(path, f"{5 * number + 2:08d}.png").offset_data + 40)
    (tmp_path / "data/test/000004.tar").unlink()
    assert main([f"data={tmp_path}/data", "workers=1", f"out={tmp_path}/one.json"]) == 2
    assert main([f"data={tmp_path}/data", "workers=2", f"out={tmp_path}/two.json"]) == 2
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert one == two and len(one["damaged"]) == 11
    assert one["damaged"][-1] == {
        "split": "test",
        "sample": "000004",
        "reason": "missing; the index names 4 samples in it",
    }


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_in_the_middle_the_same_command_goes_on_and_does_no_finished_shard_again(
    tmp_path: Path, workers: int
) -> None:
    """Two shards are pipes that nobody writes to: there it waits, with one worker or two, until it is killed."""
    data = write_tiny_shards(tmp_path / "data", (30,) * 24)
    pipes = [data / "000012.tar", data / "000013.tar"]
    for path in pipes:
        path.rename(tmp_path / path.name)
        os.mkfifo(path)
    words = [sys.executable, "-m", "cluster_jobs.verify", f"data={data}", f"workers={workers}"]
    state = data / "verify.json.state"
    killed = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + HANG_SECONDS
    while not state.is_file() or state.read_bytes().count(b"\n") < 1 + 12:
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    whole, newline, torn = state.read_bytes().rpartition(b"\n")
    finished = {json.loads(line)["number"] for line in whole.splitlines()[1:]}
    assert finished == set(range(12)) and not (data / "verify.json").exists()
    for path in pipes:
        path.unlink()
        (tmp_path / path.name).rename(path)
    state.write_bytes(whole + newline + (torn or b'{"split": "", "numb'))  # as a kill inside a write leaves it

    for number in (0, 23):  # one that is finished, one that is not
        path = data / f"{number:06d}.tar"
        status = path.stat()
        flip(path, member(path, f"{30 * number + 7:08d}.png").offset_data + 40)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "12 of 24 shards were verified before" in ended.stdout
    assert "verify: 12 shards" in ended.stderr
    # the finished one was not read again: its size and time are the same
    assert list(found(data)) == ["000023/00000697"]
    assert verify(data, "fresh=true") == 2
    assert len(found(data)) == 2
