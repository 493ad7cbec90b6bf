"""``python -m cluster_jobs.pack`` from the outside: what it writes, refuses, continues and survives."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster_jobs.pack import main
from cluster_jobs.shard_writer import Sample, write_shard
from cluster_jobs.shards import Shards
from tests.cluster_jobs.test_sources import encode, noise, save, write_idx
from tests.processes import HANG_SECONDS, ROOT

HOSTILE = "my im=ages 'été' \"x\" [a],{b} ${c}"


def pictures(root: Path, classes: dict[str, int], *, channels: int = 3, side: int = 32) -> Path:
    for place, (name, count) in enumerate(classes.items()):
        for number in range(count):
            array = noise(side, side, channels, seed=100 * place + number)
            save(root / name / f"{number}.png", array[..., 0] if channels == 1 else array)
    return root


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def pack(*words: str) -> int:
    return main(["workers=0", *words])


def members(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as opened:
        return {m.name: opened.extractfile(m).read() for m in opened}  # type: ignore[union-attr]


def test_digits_become_a_train_and_a_test_directory(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert pack("source=digits", f"out={tmp_path}/d") == 0
    train, test = Shards(tmp_path / "d/train"), Shards(tmp_path / "d/test")
    assert (train.count, test.count, train.size, train.channels) == (1437, 360, 32, 1)
    assert train.shard_counts.tolist() == [1000, 437]
    assert train.key(1436) == "000001/00001436"
    table = capsys.readouterr().out
    assert "1,437" in table and train.fingerprint[:16] in table and "1 × 32 × 32" in table
    assert not (tmp_path / "d/train/.parts").exists()


def test_the_same_command_again_says_that_all_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ("source=digits", f"out={tmp_path}/d", "size=8")
    assert pack(*words) == 0
    before, changed = snapshot(tmp_path), (tmp_path / "d/train/000000.tar").stat().st_mtime_ns
    assert "already finished" not in capsys.readouterr().out
    assert pack(*words, "allow_bad=3") == 0  # what cannot change the bytes may change
    assert "already finished" in capsys.readouterr().out
    assert snapshot(tmp_path) == before and (tmp_path / "d/train/000000.tar").stat().st_mtime_ns == changed


def test_a_changed_configuration_is_refused_with_the_difference(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert pack("source=digits", f"out={tmp_path}/d", "size=8") == 0
    before = snapshot(tmp_path)
    assert pack("source=digits", f"out={tmp_path}/d", "size=16", "shard_samples=500") == 2
    message = capsys.readouterr().err
    assert "size 8 → 16" in message and "shard_samples 1000 → 500" in message and "mode" not in message
    assert message.count("\n") == 1
    assert snapshot(tmp_path) == before


def test_folder_labels_pictures_and_file_names_arrive_in_the_shards(tmp_path: Path) -> None:
    path = pictures(tmp_path / HOSTILE, {"été": 3, "big cat": 5, "one": 1})
    assert pack("source=folder", f"path={path}", f"out={tmp_path}/o={HOSTILE}", "shard_samples=4") == 0
    shards = Shards(tmp_path / f"o={HOSTILE}/train")
    assert shards.classes == ["big cat", "one", "été"] and shards.channels == 3
    assert shards.shard_counts.tolist() == [4, 4, 1]
    labels = shards.hidden_labels()
    assert np.bincount(labels).tolist() == [5, 1, 3]
    for index in range(9):
        file = shards.annotation(index)["file"]  # type: ignore[index]
        assert file.split("/")[0] == shards.classes[labels[index]]
        assert np.array_equal(shards.image(index).transpose(1, 2, 0), np.asarray(Image.open(path / file)))
    assert not (tmp_path / f"o={HOSTILE}/test").exists()


def test_a_flat_grey_folder_has_neither_labels_nor_colour(tmp_path: Path) -> None:
    path = pictures(tmp_path / "flat", {".": 6}, channels=1)
    assert pack("source=folder", f"path={path}", f"out={tmp_path}/out") == 0
    shards = Shards(tmp_path / "out/train")
    assert shards.channels == 1 and shards.classes == [] and (shards.hidden_labels() == -1).all()
    assert not [name for name in members(tmp_path / "out/train/000000.tar") if name.endswith(".cls")]


def test_a_held_out_share_becomes_the_test_directory(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = pictures(tmp_path / "images", {"a": 20, "b": 4, "c": 1}, side=8)
    assert pack("source=folder", f"path={path}", f"out={tmp_path}/out", "size=8", "test=0.1") == 0
    train, test = Shards(tmp_path / "out/train"), Shards(tmp_path / "out/test")
    assert np.bincount(train.hidden_labels(), minlength=3).tolist() == [18, 3, 1]
    assert np.bincount(test.hidden_labels(), minlength=3).tolist() == [2, 1, 0]
    assert train.classes == test.classes == ["a", "b", "c"]
    assert pack("source=digits", f"out={tmp_path}/d", "test=0.1") == 2
    assert "test split of its own" in capsys.readouterr().err and not (tmp_path / "d").exists()


def test_a_folder_set_aside_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = pictures(tmp_path / "images", {"train/a": 2, "test/a": 1, "val/a": 1})
    assert pack("source=folder", f"path={path}", f"out={tmp_path}/out") == 0
    assert "val/ is not packed" in capsys.readouterr().out
    assert Shards(tmp_path / "out/test").count == 1


@pytest.mark.slow
def test_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    path = pictures(tmp_path / "images", {"a": 20, "b": 3}, side=8)
    words = ("source=folder", f"path={path}", "size=8", "shard_samples=5", "test=0.2")
    assert main([*words, f"out={tmp_path}/one", "workers=0"]) == 0
    assert main([*words, f"out={tmp_path}/two", "workers=2"]) == 0
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def bad_folder(tmp_path: Path) -> Path:
    path = pictures(tmp_path / "images", {"a": 12})
    (path / "a" / "nötes.txt").write_text("no picture")
    broken = path / "a" / "bro=ken.jpg"
    content = encode(Image.fromarray(noise(64, 64, 3)), "JPEG")
    broken.write_bytes(content[: len(content) // 2])
    return path


def test_files_that_are_no_pictures_are_named_counted_and_fatal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = bad_folder(tmp_path)
    words = ("source=folder", f"path={path}", f"out={tmp_path}/out", "shard_samples=3")
    assert pack(*words, "allow_bad=1") == 2
    captured = capsys.readouterr()
    assert "a/nötes.txt" in captured.out and "a/bro=ken.jpg" in captured.out
    assert "2 file(s) are no readable pictures" in captured.err and "allow_bad=2" in captured.err
    record = json.loads((tmp_path / "out/bad_files.json").read_text())["train"]
    assert sorted(file["file"] for files in record.values() for file in files) == ["a/bro=ken.jpg", "a/nötes.txt"]
    assert not (tmp_path / "out/train/index.json").exists()
    finished = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out/train").glob("*.tar")}
    assert 3 <= len(finished) <= 4  # five shards, of which one or two hold the bad files

    assert pack(*words, "allow_bad=2") == 0
    assert "left out 2 file(s)" in capsys.readouterr().out
    shards = Shards(tmp_path / "out/train")
    assert shards.count == 12 and {shards.annotation(i)["file"] for i in range(12)} == {f"a/{i}.png" for i in range(12)}  # type: ignore[index]
    assert all((tmp_path / "out/train" / name).stat().st_mtime_ns == changed for name, changed in finished.items())
    assert pack(*words, f"out={tmp_path}/again", "allow_bad=5") == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "again")


def test_a_repaired_file_is_read_again_and_a_removed_one_starts_anew(tmp_path: Path) -> None:
    path = bad_folder(tmp_path)
    words = ("source=folder", f"path={path}", "shard_samples=3")
    assert pack(*words, f"out={tmp_path}/out") == 2
    save(path / "a" / "bro=ken.jpg", noise(32, 32, 3))
    assert pack(*words, f"out={tmp_path}/out") == 2  # one is left
    (path / "a" / "nötes.txt").unlink()
    assert pack(*words, f"out={tmp_path}/out") == 0
    assert pack(*words, f"out={tmp_path}/fresh") == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")
    assert Shards(tmp_path / "out/train").count == 13


def test_what_an_earlier_life_left_out_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bad_folder(tmp_path)
    words = ("source=folder", f"path={path}", f"out={tmp_path}/out", "shard_samples=3")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cluster_jobs.packing._finish", die)
    with pytest.raises(KeyboardInterrupt):
        pack(*words, "allow_bad=2")
    monkeypatch.undo()
    assert pack(*words, "allow_bad=1") == 2
    assert not (tmp_path / "out/train/index.json").exists()
    assert pack(*words, "allow_bad=2") == 0
    assert Shards(tmp_path / "out/train").index["left_out"] == 2


def test_a_folder_without_any_picture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("x")
    assert pack("source=folder", f"path={tmp_path}/texts", f"out={tmp_path}/out", "allow_bad=9") == 2
    assert "a.txt" in capsys.readouterr().err
    assert not (tmp_path / "out/train/index.json").exists()


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
        patch.setattr("cluster_jobs.packing._finish", die)
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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["source=folder", "path={}/missing", "out={}/out"], "no such directory"),
        (["source=folder", "path={}/empty", "out={}/out"], "holds no files"),
        (["source=idx", "path={}/empty", "out={}/out"], "train-images-idx3-ubyte"),
        (["source=webdataset", "path={}/empty"], "holds no .tar files"),
        (["source=folder", "path={}/empty", "out={}/empty/packed"], "lies in path="),
        (["source=folder", "out={}/out"], "missing path="),
        (["source=digits"], "missing out="),
        (["source=digits", "path={}/empty", "out={}/out"], "takes no path"),
        (["source=digits", "out={}/out", "classes=a,b"], "its own class names"),
        (["source=digits", "out={}/full"], "holds something else"),
        (["source=digits", "out={}/full/file"], "is a file"),
        (["source=digits", "out={}/full/file/x"], "cannot make the directory"),
        (["source=digits", "out={}/out", "test=1"], "test=1"),
        (["source=digits", "out={}/out", "test=-0.1"], "test=-0.1"),
        (["source=digits", "out={}/out", "size=0"], "size=0: expected 4 to 4096"),
        (["source=digits", "out={}/out", "shard_samples=0"], "shard_samples=0"),
        (["source=digits", "out={}/out", "size=big"], "size=big"),
        (["source=digit", "out={}/out"], "did you mean 'digits'"),
        (["surce=digits", "out={}/out"], "did you mean 'source'"),
        (["source=webdataset", "path={}/empty", "test=0.1"], "cannot hold samples out"),
    ],
)
def test_a_wrong_input_is_one_clear_line(
    tmp_path: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    before = snapshot(tmp_path)
    assert main([word.replace("{}", str(tmp_path)) for word in words]) == 2
    message = capsys.readouterr().err
    assert expected in message and message.count("\n") == 1
    assert snapshot(tmp_path) == before


def test_validate_checks_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert pack("source=digits", f"out={tmp_path}/out", "validate=true") == 0
    assert "source: digits" in capsys.readouterr().out and not (tmp_path / "out").exists()
    assert pack("source=digits", f"out={tmp_path}/out", "validate=true", "test=2") == 2


def foreign_shards(directory: Path, *, shards: int = 3, samples: int = 4, labels: bool = True) -> Path:
    """Shards as others write them: any keys, JPEG and WebP, class numbers as text, only some labelled."""
    directory.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with tarfile.open(directory / f"set-{shard + 8}.tar", "w") as tar:
            for number in range(samples):
                extension, kind = [("jpg", "JPEG"), ("webp", "WEBP"), ("jpeg", "JPEG"), ("png", "PNG")][number % 4]
                files = {extension: encode(Image.fromarray(noise(48, 40, 3, seed=shard * 10 + number)), kind)}
                if labels and number % 2 == 0:
                    files["cls"] = f"{number + shard}\n".encode()
                files["json"] = json.dumps({"number": number}).encode()
                for name, content in files.items():
                    info = tarfile.TarInfo(f"deep/bild_{shard}{number}.{name}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return directory


def test_foreign_shards_are_indexed_in_place_and_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = foreign_shards(tmp_path / "wds été")
    before = {tar.name: (tar.read_bytes(), tar.stat().st_mtime_ns) for tar in path.glob("*.tar")}
    assert pack("source=webdataset", f"path={path}", "size=24") == 0
    shards = Shards(path)
    assert shards.shard_names == ["set-8.tar", "set-9.tar", "set-10.tar"] and shards.count == 12
    assert shards.hidden_labels().tolist() == [0, -1, 2, -1, 1, -1, 3, -1, 2, -1, 4, -1]
    assert shards.classes == ["0", "1", "2", "3", "4"] and shards.image(5).shape == (3, 24, 24)
    assert shards.key(5) == "set-9/deep/bild_11" and shards.annotation(5) == {"number": 1}
    assert before == {tar.name: (tar.read_bytes(), tar.stat().st_mtime_ns) for tar in path.glob("*.tar")}
    assert pack("source=webdataset", f"path={path}", "size=24") == 0
    assert "already finished" in capsys.readouterr().out


def test_an_index_may_lie_elsewhere_and_point_at_the_shards(tmp_path: Path) -> None:
    path = foreign_shards(tmp_path / "wds")
    foreign_shards(tmp_path / "split/train", shards=1)
    foreign_shards(tmp_path / "split/test", shards=2)
    before = snapshot(tmp_path / "wds") | snapshot(tmp_path / "split")
    names = "classes=T-shirt/top, big cat,x=y,d,é"
    assert pack("source=webdataset", f"path={path}", f"out={tmp_path}/index", names) == 0
    shards = Shards(tmp_path / "index/train")
    assert shards.classes == ["T-shirt/top", "big cat", "x=y", "d", "é"]
    with Image.open(io.BytesIO(members(path / "set-9.tar")["deep/bild_13.png"])) as picture:
        assert shards.encoded(7) and picture.size == (40, 48)
    assert shards.encoded(7) == members(path / "set-9.tar")["deep/bild_13.png"]
    assert pack("source=webdataset", f"path={tmp_path}/split", f"out={tmp_path}/both") == 0
    train, test = Shards(tmp_path / "both/train"), Shards(tmp_path / "both/test")
    assert (train.count, test.count) == (4, 8)
    assert train.classes == test.classes == ["0", "1", "2", "3"]
    assert before == snapshot(tmp_path / "wds") | snapshot(tmp_path / "split")


def test_damaged_samples_of_foreign_shards_are_named_and_may_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = foreign_shards(tmp_path / "wds", shards=2)
    png = encode(Image.fromarray(noise(32, 32, 3)), "PNG")
    good = [Sample(f"{number:03d}", png, "png", 1) for number in range(5)]
    good[2] = Sample("002 long key", png[:200], "png", 7)
    write_shard(tmp_path / "other", 0, good)
    (tmp_path / "other/000000.tar").rename(path / "zzz.tar")
    assert pack("source=webdataset", f"path={path}") == 2
    assert "zzz.tar/002 long key" in capsys.readouterr().err and not (path / "index.json").exists()
    assert pack("source=webdataset", f"path={path}", "allow_bad=1") == 0
    shards = Shards(path)
    assert shards.keys()[8:] == ["zzz/000", "zzz/001", "zzz/003", "zzz/004"]
    assert shards.encoded(11) == png and shards.hidden_labels()[8:].tolist() == [1, 1, 1, 1]


def test_a_truncated_foreign_tar_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = foreign_shards(tmp_path / "wds")
    whole = (path / "set-9.tar").read_bytes()
    (path / "set-9.tar").write_bytes(whole[: len(whole) // 2])
    assert pack("source=webdataset", f"path={path}") == 2
    message = capsys.readouterr().err
    assert "set-9.tar" in message and "truncated" in message and message.count("\n") == 1
    assert not (path / "index.json").exists()
    (path / "set-9.tar").write_bytes(whole)
    assert pack("source=webdataset", f"path={path}") == 0 and Shards(path).count == 12


def test_shards_that_pack_wrote_are_not_indexed_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert pack("source=digits", f"out={tmp_path}/d", "size=8") == 0
    before = snapshot(tmp_path)
    assert pack("source=webdataset", f"path={tmp_path}/d/test") == 2
    assert "ready as they are" in capsys.readouterr().err and snapshot(tmp_path) == before


PACK_UNTIL_KILLED = """
import multiprocessing, os, signal, sys
from cluster_jobs import pack, packing

def dying(*arguments, do=packing.do):
    for number, result in enumerate(do(*arguments), 1):
        if number == int(sys.argv[1]):
            print("workers", *(child.pid for child in multiprocessing.active_children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        yield result

packing.do = dying
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
        patch.setattr("cluster_jobs.shard_writer.shutil.rmtree", dying)
        pack(*words, f"out={tmp_path}/out")
    assert (tmp_path / "out/train/.parts").exists()
    assert pack(*words, f"out={tmp_path}/out") == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "undisturbed")
