"""``python -m cluster_jobs.pack`` from the outside: what it writes, leaves out and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster_jobs.data.shards import Shards
from cluster_jobs.pack import main
from tests.cluster_jobs.pack_runs import HOSTILE, bad_folder, members, pack, pictures, snapshot
from tests.cluster_jobs.pictures import noise, save


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
    assert "size: 8 -> 16" in message and "shard_samples: 1000 -> 500" in message and "mode" not in message
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

    monkeypatch.setattr("cluster_jobs.packing.engine._finish", die)
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
        (["source=digits", "out={}/full/file/x"], "cannot write there"),
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
