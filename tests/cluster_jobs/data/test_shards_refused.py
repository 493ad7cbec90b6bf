"""Tars that are no shards, and directories of shards that are damaged, are refused by name."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cluster_jobs.core.errors import DamagedSample, UserError
from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, finish_index, index_shard, write_index_part, write_shard
from cluster_jobs.data.shards import Shards
from tests.cluster_jobs.tiny import tar_of, tiny_images, write_tiny_shards

# --- tars that cannot be indexed


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.png": b"", "0.cls": b"cat"}, r"0\.cls holds b'cat', expected a class number"),
        ({"0.png": b"", "0.cls": b"-1"}, r"0\.cls holds -1, expected a class number of at least 0"),
        ({"0.cls": b"1"}, r"sample '0' has no image \(found cls\)"),
        ({"0.png": b"", "1.png": b"", "0.jpg": b""}, r"keys are there twice"),
        ({"0.png": b"", "0.PNG": b""}, r"0\.PNG is there twice"),
    ],
)
def test_a_tar_that_is_no_webdataset_is_refused_by_name(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    path = tar_of(tmp_path / "their.tar", members)
    with pytest.raises(UserError, match=rf"their\.tar: .*{message}"):
        index_shard(path)


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, bytes(10240), b"\x1f\x8b" + bytes(600)])
def test_a_file_that_is_no_tar_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.tar: (damaged|empty)"):
        index_shard(tmp_path / "x.tar")


def test_a_tar_cut_anywhere_before_its_end_mark_is_refused(tmp_path: Path) -> None:
    images = tiny_images()
    write_shard(tmp_path, 0, [Sample(str(i), encode_png(images[i]), label=i) for i in range(3)])
    whole = (tmp_path / "000000.tar").read_bytes()
    with tarfile.open(tmp_path / "000000.tar") as tar:
        members = tar.getmembers()
    end = members[-1].offset_data + 512  # of the last member's data, padded; then come two blocks of zeros
    cuts = {cut for member in members for cut in (member.offset, member.offset + 100, member.offset_data)}
    cuts |= {cut for member in members for cut in (member.offset_data + 1, member.offset_data + member.size - 1)}
    cuts |= {1, 511, end - 1, end, end + 1, end + 511}
    cut_path = tmp_path / "cut.tar"
    for cut in sorted(cuts - {0}):
        cut_path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"cut\.tar: .*(truncated|damaged)"):
            index_shard(cut_path)
    for cut in (end + 512, end + 1024, len(whole) - 1):  # only padding is missing: every sample is whole
        cut_path.write_bytes(whole[:cut])
        assert index_shard(cut_path).keys == ["0", "1", "2"]


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar", {f"{i}.png": encode_png(tiny_images()[i]) for i in range(3)})
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[1].offset
    content = bytearray(path.read_bytes())
    content[offset + 148] ^= 1  # the header's checksum
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.tar: .*1 whole samples"):
        index_shard(path)


def test_two_shards_of_one_name_are_refused(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        path = tar_of(tmp_path / str(number) / "a.tar", {"0.png": encode_png(tiny_images()[number])})
        write_index_part(tmp_path, number, index_shard(path))
    with pytest.raises(UserError, match="same file name"):
        finish_index(tmp_path, 2, classes=[], size=8, mode="L", files=["0/a.tar", "1/a.tar"])


# --- directories that cannot be read


def test_a_missing_an_empty_and_an_unindexed_directory_each_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data directory '.*nowhere' does not exist"):
        Shards(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no index\.json.*make it with python -m cluster_jobs\.pack"):
        Shards(tmp_path)
    write_tiny_shards(tmp_path / "train")
    with pytest.raises(UserError, match=r"did you mean '.*/train'\?"):
        Shards(tmp_path)
    tar_of(tmp_path / "x.tar", {"0.png": b""})
    with pytest.raises(UserError, match=r"it holds 1 tars: index them with cluster_jobs\.pack source=webdataset"):
        Shards(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 100, 511, 512, 1024, 2000, -10240, -1])
def test_a_truncated_shard_is_refused_by_name(copied: Path, kept: int) -> None:
    path = copied / "000002.tar"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"000002\.tar: truncated or changed shard \(\d+ bytes, the index says \d+\)"):
        Shards(copied)


def test_a_missing_shard_is_refused_by_name(copied: Path) -> None:
    (copied / "000001.tar").unlink()
    with pytest.raises(UserError, match=r"000001\.tar: the index names this shard, but it is missing"):
        Shards(copied)


@pytest.mark.parametrize("name", ["index.bin", "keys.bin", "labels.bin"])
@pytest.mark.parametrize("how", ["cut", "empty", "missing"])
def test_a_damaged_index_is_refused_by_name(copied: Path, name: str, how: str) -> None:
    path = copied / name
    content = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes(content[:-1] if how == "cut" else b"")
    with pytest.raises(UserError, match=rf"{name}: damaged index"):
        Shards(copied).hidden_labels()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": 1}', '{"version": 1, "count": 0}', "\x00"])
def test_a_damaged_index_json_is_refused(copied: Path, content: str) -> None:
    (copied / "index.json").write_text(content)
    with pytest.raises(UserError, match=r"index\.json: damaged index .*; pack the data again"):
        Shards(copied)


def test_an_index_of_another_version_is_refused(copied: Path) -> None:
    index = json.loads((copied / "index.json").read_text())
    (copied / "index.json").write_text(json.dumps(index | {"version": 2}))
    with pytest.raises(UserError, match="index version 2, this program reads version 1"):
        Shards(copied)


def test_a_damaged_sample_is_named(copied: Path) -> None:
    member = Shards(copied)._members[9]
    content = bytearray((copied / "000001.tar").read_bytes())
    content[int(member["image_offset"]) : int(member["image_offset"]) + 8] = b"no image"
    (copied / "000001.tar").write_bytes(content)
    shards = Shards(copied)
    with pytest.raises(DamagedSample, match="sample 000001/00000009 is no readable image"):
        shards.image(9)
    assert np.array_equal(shards.image(8), tiny_images()[8])
