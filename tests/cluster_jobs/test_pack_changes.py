"""``pack`` started again: after changes to its source, and after it was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster_jobs.data.shards import Shards
from tests.cluster_jobs.pack_runs import HOSTILE, bad_folder, pack, pictures, snapshot
from tests.cluster_jobs.pictures import noise, save, write_idx
from tests.processes import HANG_SECONDS, ROOT


def test_a_finished_directory_whose_source_changed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = pictures(tmp_path / "images", {"a": 3})
    words = ("source=folder", f"path={path}", f"out={tmp_path}/out")
    assert pack(*words) == 0
    save(path / "a" / "more.png", noise(32, 32, 3))
    assert pack(*words) == 2
    assert "images have changed" in capsys.readouterr().err
    assert Shards(tmp_path / "out/train").count == 3


def rewrite(file: Path, *, how: str) -> None:
    """Writes a file again: with another size and the same time, or the other way round."""
    before = file.stat()
    image = np.asarray(Image.open(file)).copy()
    save(file, image * 0 if how == "size" else image)
    other_time = before.st_mtime_ns + (0 if how == "size" else 1)
    os.utime(file, ns=(before.st_atime_ns, other_time))
    assert (file.stat().st_size != before.st_size) == (how == "size")


@pytest.mark.parametrize("how", ["size", "time"])
@pytest.mark.parametrize("test", ["0", "0.3"])
def test_a_finished_directory_is_refused_where_a_file_of_the_same_name_has_changed(
    tmp_path: Path, how: str, test: str, capsys: pytest.CaptureFixture
) -> None:
    path = pictures(tmp_path / "images", {"a": 6})
    words = ("source=folder", f"path={path}", f"out={tmp_path}/out", "shard_samples=1", f"test={test}")
    assert pack(*words) == 0
    before = snapshot(tmp_path / "out")
    rewrite(path / "a" / "0.png", how=how)
    assert pack(*words) == 2
    message = capsys.readouterr().err
    assert "files have changed (size or time)" in message and "those of 1 shard(s)" in message
    assert message.count("\n") == 1 and snapshot(tmp_path / "out") == before


def test_of_an_unfinished_directory_only_the_shards_of_changed_files_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = pictures(tmp_path / "images", {"a": 6})
    words = ("source=folder", f"path={path}", "shard_samples=2")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cluster_jobs.packing.engine._finish", die)
        pack(*words, f"out={tmp_path}/out")
    made = {tar.name: tar.stat().st_mtime_ns for tar in (tmp_path / "out/train").glob("*.tar")}
    rewrite(path / "a" / "3.png", how="size")
    assert pack(*words, f"out={tmp_path}/out") == 0
    assert "files of 1 shard(s) have changed" in capsys.readouterr().out
    again = {tar.name: tar.stat().st_mtime_ns for tar in (tmp_path / "out/train").glob("*.tar")}
    assert len(made) == 3 and sum(made[name] != again[name] for name in made) == 1
    assert pack(*words, f"out={tmp_path}/fresh") == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")


@pytest.mark.parametrize("finished", [True, False])
def test_a_directory_from_before_sizes_and_times_were_kept_goes_on(
    tmp_path: Path, finished: bool, capsys: pytest.CaptureFixture
) -> None:
    path = bad_folder(tmp_path)
    words = ("source=folder", f"path={path}", f"out={tmp_path}/out", "shard_samples=3")
    assert pack(*words, f"allow_bad={2 if finished else 0}") == (0 if finished else 2)
    state = json.loads((tmp_path / "out/pack.json").read_text())
    assert state.pop("stamps").keys() == {"train"}
    (tmp_path / "out/pack.json").write_text(json.dumps(state))
    tars = {tar.name: tar.stat().st_mtime_ns for tar in (tmp_path / "out/train").glob("*.tar")}
    assert pack(*words, "allow_bad=2") == 0
    assert ("already finished" in capsys.readouterr().out) == finished
    assert tars.items() <= {tar.name: tar.stat().st_mtime_ns for tar in (tmp_path / "out/train").glob("*.tar")}.items()


PACK_UNTIL_KILLED = """
import multiprocessing, os, signal, sys
from cluster_jobs import pack
from cluster_jobs.packing import engine as packing

def dying(*arguments, run_tasks=packing.run_tasks):
    for number, result in enumerate(run_tasks(*arguments), 1):
        if number == int(sys.argv[1]):
            print("workers", *(child.pid for child in multiprocessing.active_children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        yield result

packing.run_tasks = dying
pack.main(sys.argv[2:])
"""


def kill_after(words: list[str], shards: int) -> None:
    """A pack that dies once it hears of this many finished shards; its workers must go too."""
    command = [sys.executable, "-c", PACK_UNTIL_KILLED, str(shards), *words]
    killed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=HANG_SECONDS)
    assert killed.returncode == -signal.SIGKILL
    _, *workers = killed.stdout.splitlines()[-1].split()
    assert len(workers) == 2 * ("workers=2" in words)
    deadline = time.monotonic() + HANG_SECONDS
    while any(_runs(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived the command"
        time.sleep(0.01)


def _runs(pid: str) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_a_killed_pack_continues_to_the_same_bytes(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / HOSTILE
    data.mkdir()
    write_idx(data / "train-images-idx3-ubyte", noise(1500, 28, 28))
    write_idx(data / "train-labels-idx1-ubyte", noise(1500) % 10)
    words = ["source=idx", f"path={data}", "shard_samples=25", "test=0.3"]
    assert pack(*words, f"out={tmp_path}/undisturbed") == 0
    undisturbed = snapshot(tmp_path / "undisturbed")
    kill_after([*words, f"out={out}", "workers=2"], 10)
    kill_after([*words, f"out={out}", "workers=0"], 20)
    finished = {tar: tar.stat().st_mtime_ns for tar in out.rglob("*.tar")}
    assert 30 <= len(finished) < 60 and not list(out.rglob("index.json"))
    assert pack(*words, f"out={out}") == 0
    assert snapshot(out) == undisturbed
    assert all(tar.stat().st_mtime_ns == changed for tar, changed in finished.items())


def test_a_pack_that_dies_before_any_of_its_renames_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pictures(tmp_path / "images", {"a": 6}, side=8)
    words = ("source=folder", f"path={path}", "size=8", "shard_samples=2", "test=0.4")
    assert pack(*words, f"out={tmp_path}/undisturbed") == 0
    undisturbed = snapshot(tmp_path / "undisturbed")
    rename, deaths = Path.replace, 0
    for allowed in range(30):  # every file becomes visible by a rename
        calls = 0

        def dying(self: Path, target: Path, allowed: int = allowed) -> Path:
            nonlocal calls
            calls += 1
            if calls > allowed:
                raise KeyboardInterrupt
            return rename(self, target)

        out = tmp_path / str(allowed)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying)
            try:
                assert pack(*words, f"out={out}") == 0
                break
            except KeyboardInterrupt:
                deaths += 1
        assert not (out / "test/index.json").exists()
        assert pack(*words, f"out={out}") == 0
        assert snapshot(out) == undisturbed
    assert deaths == 1 + 3 * 2 + 2 * 4  # pack.json; three shards and their parts; two indices of four files


def test_a_pack_that_dies_while_tidying_up_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("source=digits", "size=8")
    assert pack(*words, f"out={tmp_path}/undisturbed") == 0

    def dying(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cluster_jobs.data.shard_writer.shutil.rmtree", dying)
        pack(*words, f"out={tmp_path}/out")
    assert (tmp_path / "out/train/.parts").exists()
    assert pack(*words, f"out={tmp_path}/out") == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "undisturbed")
