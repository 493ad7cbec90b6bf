"""Exports read back without this project: with PIL, csv, zipfile and numpy alone."""

import csv
import os
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards
from s3gan.export import main
from s3gan.pools import exported
from s3gan.pools.image_folder import safe_name
from tests.processes import fork

NAMES = ["cat", "dog", "éléphant blanc"]


def make_shards(directory: Path, labels, *, keys=None, classes=NAMES, channels=1, size=8, shard=4) -> Shards:
    """Shards of `shard` samples each; a label of None has no .cls."""
    random = np.random.RandomState(0)
    starts = range(0, len(labels), shard)
    for number, start in enumerate(starts):
        samples = []
        for index in range(start, min(start + shard, len(labels))):
            image = random.randint(0, 256, (channels, 8, 8)).astype(np.uint8)
            key = keys[index] if keys else f"{index:08d}"
            samples.append(Sample(key, encode_png(image), label=labels[index]))
        write_shard(directory, number, samples)
    mode = "L" if channels == 1 else "RGB"
    finish_index(directory, len(starts), classes=classes, size=size, mode=mode)
    return Shards(directory)


def export(shards: Shards, out: Path, *words: str) -> int:
    return main([f"pool={shards.directory}", f"out={out}", *words])


def refusal(capsys, shards: Shards, out: Path, *words: str) -> str:
    capsys.readouterr()
    assert export(shards, out, *words) == 2
    lines = [line for line in capsys.readouterr().err.strip().splitlines() if not line.startswith("exporting")]
    assert len(lines) == 1
    return lines[0]


def read_image_folder(root: Path) -> dict[tuple[str, str], np.ndarray]:
    """(folder, file) → pixels, walking directories as torchvision's ImageFolder does."""
    found = {}
    for folder in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()):
        for file in sorted(os.listdir(root / folder)):
            with Image.open(root / folder / file) as picture:
                found[folder, file] = np.asarray(picture)
    return found


def everything(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_folder_holds_every_picture_in_the_folder_of_its_class(tmp_path, channels):
    labels = [0, 2, 2, 0, 2, 0, 0]
    shards = make_shards(tmp_path / "pool", labels, channels=channels)
    out = tmp_path / "ex port = 'x'"
    assert export(shards, out) == 0
    found = read_image_folder(out)
    assert sorted(found) == sorted((NAMES[label], f"{index:08d}.png") for index, label in enumerate(labels))
    for index, label in enumerate(labels):
        expected = shards.image(index)[0] if channels == 1 else shards.image(index).transpose(1, 2, 0)
        np.testing.assert_array_equal(found[NAMES[label], f"{index:08d}.png"], expected)
    with open(out / "classes.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["label", "class", "folder", "images"],
        ["0", "cat", "cat", "4"],
        ["1", "dog", "", "0"],  # ImageFolder refuses folders without pictures
        ["2", "éléphant blanc", "éléphant blanc", "3"],
    ]
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")] == []


@pytest.mark.parametrize("channels", [1, 3])
def test_an_npz_is_read_by_numpy_without_pickle(tmp_path, channels):
    labels = [0, 2, 2, 0, 2, 0, 0]
    shards = make_shards(tmp_path / "pool", labels, channels=channels)
    assert export(shards, tmp_path / "deep" / "pool.npz", "format=npz") == 0
    with np.load(tmp_path / "deep" / "pool.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    assert arrays["images"].dtype == np.uint8 and arrays["images"].shape == (7, 8, 8, channels)
    assert arrays["labels"].dtype == np.int64 and arrays["labels"].tolist() == labels
    assert arrays["class_names"].tolist() == NAMES
    expected = np.stack([shards.image(index).transpose(1, 2, 0) for index in range(7)])
    np.testing.assert_array_equal(arrays["images"], expected)
    assert zipfile.ZipFile(tmp_path / "deep" / "pool.npz").testzip() is None
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["pool.npz"]


def test_equal_pools_give_equal_exports(tmp_path):
    for name in ("a", "b"):
        shards = make_shards(tmp_path / name / "pool", [0, 1, 2])
        export(shards, tmp_path / name / "pool.npz", "format=npz")
        export(shards, tmp_path / name / "folder")
    assert (tmp_path / "a" / "pool.npz").read_bytes() == (tmp_path / "b" / "pool.npz").read_bytes()
    assert everything(tmp_path / "a" / "folder") == everything(tmp_path / "b" / "folder")


def test_pictures_of_another_size_are_exported_at_the_size_that_the_project_reads(tmp_path):
    shards = make_shards(tmp_path / "pool", [0, 1], size=4)
    export(shards, tmp_path / "out")
    assert {image.shape for image in read_image_folder(tmp_path / "out").values()} == {(4, 4)}


def test_unlabelled_samples_are_refused_unless_they_are_to_be_left_out(tmp_path, capsys):
    shards = make_shards(tmp_path / "pool", [0, None, 1, None, 1])
    for words in (["format=imagefolder"], ["format=npz"]):
        out = tmp_path / "out.npz"
        message = refusal(capsys, shards, out, *words)
        assert "2 of 5 samples have no label, the first is 000000/00000001" in message and not out.exists()
    assert export(shards, tmp_path / "out", "unlabelled=leave_out") == 0
    assert sorted(read_image_folder(tmp_path / "out")) == [
        ("cat", "00000000.png"),
        ("dog", "00000002.png"),
        ("dog", "00000004.png"),
    ]
    bare = make_shards(tmp_path / "bare", [None, None])
    assert "none of its 2 samples has a label" in refusal(capsys, bare, tmp_path / "none", "unlabelled=leave_out")


def test_a_label_without_a_name_is_called_by_its_number(tmp_path):
    export(make_shards(tmp_path / "pool", [0, 3], classes=["cat"]), tmp_path / "out")
    assert [folder for folder, _ in read_image_folder(tmp_path / "out")] == ["3", "cat"]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("éléphant blanc", "éléphant blanc"),
        ("e\u0301le\u0301phant", "éléphant"),
        ("cats/dogs", "cats_dogs"),
        ('a<b>c:d"e\\f|g?h*i\nj', "a_b_c_d_e_f_g_h_i_j"),
        ("..", "_"),
        (".hidden", "_.hidden"),
        ("ends. ", "ends"),
        ("", "_"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("classes.csv", "_classes.csv"),
        ("é" * 200, "é" * 100),
    ],
)
def test_a_name_becomes_one_that_every_file_system_takes(name, safe):
    assert safe_name(name) == safe and safe_name(safe) == safe


def test_classes_and_samples_that_would_share_a_name_are_refused(tmp_path, capsys):
    shards = make_shards(tmp_path / "classes", [0, 1, 2], classes=["a/b", "dog", "A:b"])
    assert "the classes 'a/b' and 'A:b' would share the folder 'a_b'" in refusal(capsys, shards, tmp_path / "out")
    shards = make_shards(tmp_path / "keys", [0, 0], keys=["x/1", "x:1"])
    assert "the samples 000000/x/1 and 000000/x:1 would share" in refusal(capsys, shards, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_keys_that_repeat_from_shard_to_shard_get_the_shard_in_front(tmp_path):
    shards = make_shards(tmp_path / "pool", [0, 0, 1], keys=["a", "b", "a"], shard=2)
    export(shards, tmp_path / "out")
    assert sorted(file for _, file in read_image_folder(tmp_path / "out")) == [
        "000000_a.png",
        "000000_b.png",
        "000001_a.png",
    ]


def test_the_same_command_finds_its_export_and_anything_else_there_is_refused(tmp_path, capsys):
    shards, other = make_shards(tmp_path / "pool", [0, 1]), make_shards(tmp_path / "other", [1, 0])
    (tmp_path / "out").mkdir()  # an empty directory is fine
    for out, words in ((tmp_path / "out", []), (tmp_path / "out.npz", ["format=npz"])):
        assert export(shards, out, *words) == 0
        before = everything(out) if out.is_dir() else out.read_bytes()
        capsys.readouterr()
        assert export(shards, out, *words) == 0
        assert "is finished" in capsys.readouterr().out
        assert "choose a new" in refusal(capsys, other, out, *words)
        assert before == (everything(out) if out.is_dir() else out.read_bytes())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("!")
    assert "holds something else" in refusal(capsys, shards, tmp_path / "mine")
    assert "is a file" in refusal(capsys, shards, tmp_path / "mine" / "precious.txt")
    (tmp_path / "mine.npz").write_bytes(b"precious")
    assert "is something else" in refusal(capsys, shards, tmp_path / "mine.npz", "format=npz")
    assert "ends in .npz" in refusal(capsys, shards, tmp_path / "out2", "format=npz")
    assert (tmp_path / "mine.npz").read_bytes() == b"precious"


def test_an_export_that_ended_early_goes_on_and_leaves_nothing_before(tmp_path, monkeypatch):
    monkeypatch.setattr(exported, "CHUNK", 3)
    shards = make_shards(tmp_path / "pool", [0, 1, 2] * 4)
    export(shards, tmp_path / "whole")
    read, seen = exported.Exported.image, []

    def failing(self, place):
        seen.append(place)
        if place == 7:
            raise KeyboardInterrupt
        return read(self, place)

    monkeypatch.setattr(exported.Exported, "image", failing)
    for words in (["format=imagefolder"], ["format=npz"]):
        with pytest.raises(KeyboardInterrupt):
            export(shards, tmp_path / "out.npz", *words)
        assert not (tmp_path / "out.npz").exists()
    seen.clear()
    monkeypatch.setattr(exported.Exported, "image", lambda self, place: seen.append(place) or read(self, place))
    assert export(shards, tmp_path / "out.npz") == 0
    assert seen == [6, 7, 8, 9, 10, 11]
    assert everything(tmp_path / "out.npz") == everything(tmp_path / "whole")


def test_what_another_export_left_half_done_is_not_mixed_in(tmp_path, monkeypatch):
    one, other = make_shards(tmp_path / "one", [0, 1, 2]), make_shards(tmp_path / "other", [2, 2, 2])
    read = exported.Exported.image
    monkeypatch.setattr(exported.Exported, "image", lambda self, place: 1 / 0 if place else read(self, place))
    with pytest.raises(ZeroDivisionError):
        export(one, tmp_path / "out")
    monkeypatch.setattr(exported.Exported, "image", read)
    assert export(other, tmp_path / "out") == 0
    assert {folder for folder, _ in read_image_folder(tmp_path / "out")} == {NAMES[2]}


def test_a_damaged_sample_is_named_and_ends_the_export(tmp_path, capsys):
    shards = make_shards(tmp_path / "pool", [0, 1, 2])
    tar = bytearray((tmp_path / "pool" / "000000.tar").read_bytes())
    place = tar.find(b"IDAT", tar.find(b"00000001.png"))
    tar[place : place + 4] = b"XXXX"
    (tmp_path / "pool" / "000000.tar").write_bytes(tar)
    for out, words in ((tmp_path / "out", []), (tmp_path / "out.npz", ["format=npz"])):
        assert "000000/00000001" in refusal(capsys, shards, out, *words) and not out.exists()


def test_bad_words_are_one_line(tmp_path, capsys):
    shards = make_shards(tmp_path / "pool", [0, 1])
    assert "expected one of imagefolder, npz" in refusal(capsys, shards, tmp_path / "out", "format=folder")
    assert main([f"pool={tmp_path}/nowhere", f"out={tmp_path}/out"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "classes.csv" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("form", ["imagefolder", "npz"])
def test_an_export_survives_a_kill(tmp_path, form):
    """It dies when it comes to the second shard, in its second chunk."""
    shards = make_shards(tmp_path / "pool", [index % 3 for index in range(3000)], shard=1500)
    export(shards, tmp_path / "whole.npz", f"format={form}")
    words = ("s3gan.export", f"pool={shards.directory}", f"out={tmp_path}/out.npz", f"format={form}")
    killed = fork(tmp_path / "log", "tests.killed", *words, env={"KILL_AT": "*/pool/000001.tar"})
    assert killed.code == -signal.SIGKILL, killed.output
    assert (tmp_path / (".out.npz.tmp" if form == "npz" else ".out.npz.partial/.done")).is_file()
    assert not (tmp_path / "out.npz").exists()
    assert export(shards, tmp_path / "out.npz", f"format={form}") == 0
    if form == "npz":
        assert (tmp_path / "out.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    else:
        assert everything(tmp_path / "out.npz") == everything(tmp_path / "whole.npz")
