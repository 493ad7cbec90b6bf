"""``python -m cluster_jobs.verify`` from the outside: sound data, the damage that it names, what it refuses."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster_jobs.data.shard_writer import MEMBER, Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.pack import main as pack
from cluster_jobs.verification.checker import check, open_split
from cluster_jobs.verify import main
from tests.cluster_jobs.tiny import files_below, tiny_images, write_tiny_shards
from tests.cluster_jobs.verification.verifying import change, flip, found, member, rows, verify


def picture_of(path: Path, name: str) -> bytes:
    place = member(path, name)
    return path.read_bytes()[place.offset_data : place.offset_data + place.size]


def append(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "a") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def reindex_size(data: Path, number: int) -> None:
    """Makes the index name a shard's present size, so that only what lies in it is wrong."""
    index = json.loads((data / "index.json").read_text())
    entry = index["shards"][number]
    entry["bytes"] = (data / entry["name"]).stat().st_size
    (data / "index.json").write_text(json.dumps(index))


# --- sound data


def test_packed_digits_are_sound_and_no_shard_is_touched(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert pack(["source=digits", f"out={tmp_path}/d", "size=8", "shard_samples=300", "workers=0"]) == 0
    before = files_below(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")}
    assert verify(tmp_path / "d") == 0
    assert "sound: 1,797 images in 7 shards" in capsys.readouterr().out
    after = files_below(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"d/verify.json", "d/verify.json.state"}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")} == times
    report = json.loads((tmp_path / "d/verify.json").read_text())
    assert report["damaged"] == [] and (report["images"], report["shards"]) == (1797, 7)
    assert report["fingerprints"]["test"] == Shards(tmp_path / "d/test").fingerprint


def test_one_directory_of_shards_is_checked_alone_and_the_list_goes_where_it_is_asked(tmp_path: Path) -> None:
    data = write_tiny_shards(tmp_path / "data")
    before = files_below(data)
    out = tmp_path / "list=é.json"
    assert verify(data, f"out={out}") == 0
    assert files_below(data) == before and json.loads(out.read_text())["images"] == 21


def test_shards_that_somebody_else_wrote_are_sound_with_what_was_left_out_of_their_index(tmp_path: Path) -> None:
    pixels = tiny_images(4, channels=3).transpose(0, 2, 3, 1)
    buffers = [io.BytesIO() for _ in range(3)]
    Image.fromarray(pixels[0]).save(buffers[0], "JPEG")
    Image.fromarray(pixels[1]).save(buffers[1], "WEBP")
    Image.fromarray(pixels[2]).save(buffers[2], "PNG")
    jpeg, webp, png = (buffer.getvalue() for buffer in buffers)
    append(
        tmp_path / "x-1.tar", {"a/1.jpg": jpeg, "a/1.cls": b" 1\n", "b.webp": webp, "b.json": b'{"old": "n\xc3\xa4me"}'}
    )
    append(tmp_path / "x-2.tar", {"c.png": png, "broken.png": png[:30], "c2.jpeg": jpeg, "c2.txt": b"a caption"})
    words = ["source=webdataset", f"path={tmp_path}", "size=8", "workers=0"]
    assert pack(words) == 2 and pack([*words, "allow_bad=1"]) == 0
    assert Shards(tmp_path).count == 4
    assert verify(tmp_path) == 0


# --- damage is named


def test_a_flipped_byte_in_an_image_names_its_sample(copied: Path, capsys: pytest.CaptureFixture) -> None:
    picture = member(copied / "000002.tar", "00000013.png")
    flip(copied / "000002.tar", picture.offset_data + picture.size // 2)
    before = files_below(copied)
    assert verify(copied) == 2
    captured = capsys.readouterr()
    assert list(found(copied)) == ["000002/00000013"]
    assert "no readable image" in found(copied)["000002/00000013"]
    assert captured.err.count("\n") == 2  # the progress, then one line
    message = captured.err.splitlines()[1]
    assert "error: 1 finding(s) about samples and 0 about whole shards" in message
    assert "000002/00000013" in message and f"'{copied}/verify.json'" in message
    assert {name: content for name, content in files_below(copied).items() if name in before} == before


def test_a_byte_flipped_in_any_place_of_an_image_is_found(copied: Path) -> None:
    split, shards, _ = open_split(copied)
    path = copied / "000001.tar"
    picture = member(path, "00000008.png")
    by_digest = []
    for offset in range(picture.size):
        flip(path, picture.offset_data + offset)
        (damage,) = check(split, shards[1])
        flip(path, picture.offset_data + offset)
        assert damage.name in ("000001", "000001/00000008")
        if damage.key is None:
            by_digest.append(offset)
    assert check(split, shards[1]) == []
    assert min(by_digest, default=picture.size) >= picture.size - 12  # PNG's empty last chunk, which nobody reads


def test_an_image_without_checksum_that_changed_but_decodes_is_found_by_the_digest_of_its_shard(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(tiny_images(1, 32, 3)[0].transpose(1, 2, 0)).save(buffer, "BMP")
    write_shard(tmp_path, 0, [Sample(str(i), buffer.getvalue(), "jpg") for i in range(3)])  # Pillow goes by the content
    finish_index(tmp_path, 1, classes=[], size=32, mode="RGB")
    assert verify(tmp_path) == 0
    picture = member(tmp_path / "000000.tar", "1.jpg")
    flip(tmp_path / "000000.tar", picture.offset_data + picture.size - 5)
    assert verify(tmp_path) == 2
    assert list(found(tmp_path)) == ["000000"] and "its digest differs" in found(tmp_path)["000000"]


def test_a_truncated_tar_names_the_shard_and_every_sample_that_is_gone(copied: Path) -> None:
    path = copied / "000000.tar"
    path.write_bytes(path.read_bytes()[: member(path, "00000004.png").offset_data + 10])
    assert verify(copied) == 2
    assert rows(copied) == [
        ("000000", f"{path.stat().st_size:,} bytes, the index says 20,480"),
        ("000000", "damaged tar (unexpected end of data)"),
        *((f"000000/{i:08d}", "lies beyond the end of the shard") for i in (4, 5, 6)),
    ]


def test_a_broken_header_condemns_the_tar_but_no_sample_that_the_index_still_finds(copied: Path) -> None:
    flip(copied / "000002.tar", member(copied / "000002.tar", "00000015.png").offset + 148)  # the header's checksum
    assert verify(copied) == 2
    assert list(found(copied)) == ["000002"]
    assert "damaged or truncated tar after 5 samples" in found(copied)["000002"]


def test_a_label_that_differs_from_the_index_is_named(copied: Path) -> None:
    change(copied / "000001.tar", member(copied / "000001.tar", "00000009.cls").offset_data, b"2")
    change(copied / "000000.tar", member(copied / "000000.tar", "00000002.cls").offset_data, b"x")
    assert verify(copied) == 2
    assert found(copied) == {
        "000000/00000002": "its .cls holds 'x', labels.bin says 2",
        "000001/00000009": "its .cls holds '2', labels.bin says 0",
    }


def test_a_label_of_a_class_that_there_is_not_is_named(copied: Path) -> None:
    labels = np.fromfile(copied / "labels.bin", "<i4")
    labels[8] = 3
    labels.tofile(copied / "labels.bin")
    assert verify(copied) == 2
    assert rows(copied) == [
        ("000001/00000008", "labels.bin says class 3, there are 3"),
        ("000001/00000008", "its .cls holds '2', labels.bin says 3"),
    ]


def test_a_key_that_is_in_a_shard_twice_is_named(copied: Path) -> None:
    picture = picture_of(copied / "000001.tar", "00000007.png")
    append(copied / "000001.tar", {"00000007.png": picture, "00000007.cls": b"1"})
    append(
        copied / "000002.tar", {"00000020.png": picture_of(copied / "000002.tar", "00000020.png"), "new.png": picture}
    )
    reindex_size(copied, 1)
    reindex_size(copied, 2)
    assert verify(copied) == 2
    assert found(copied) == {
        "000001/00000007": "this key is there twice; a sample's key must be its own",
        "000002/00000020": "its .png is there twice; a sample's key must be its own",
        "000002/new": "the shard holds it, the index does not name it",
    }


def test_a_key_that_the_index_names_twice_is_named(copied: Path) -> None:
    keys = (copied / "keys.bin").read_bytes()
    (copied / "keys.bin").write_bytes(keys.replace(b"00000019", b"00000018"))
    assert verify(copied) == 2
    listed = rows(copied)
    assert listed[0] == ("000002/00000018", "the index names this key twice")
    assert listed[-1] == ("000002/00000019", "the shard holds it, the index does not name it")


def test_samples_that_are_elsewhere_than_the_index_says_are_named(copied: Path) -> None:
    with open(copied / "index.bin", "r+b") as stream:
        records = np.frombuffer(stream.read(), MEMBER).copy()
        records["image_offset"][3] += 512
        stream.seek(0)
        stream.write(records.tobytes())
    assert verify(copied) == 2
    assert list(found(copied)) == ["000000/00000003"]
    assert "the index says" in found(copied)["000000/00000003"]


def test_a_missing_shard_is_one_line_and_the_others_are_still_checked(copied: Path) -> None:
    (copied / "000001.tar").unlink()
    flip(copied / "000002.tar", member(copied / "000002.tar", "00000020.png").offset_data + 30)
    assert verify(copied) == 2
    assert list(found(copied)) == ["000001", "000002/00000020"]
    assert found(copied)["000001"] == "missing; the index names 3 samples in it"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("index.bin", "index.bin: damaged index, expected"),
        ("keys.bin", "keys.bin: damaged index, expected"),
        ("labels.bin", "labels.bin: damaged index, expected 84 bytes"),
    ],
)
def test_a_damaged_index_is_refused_in_one_line(
    copied: Path, name: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    (copied / name).write_bytes((copied / name).read_bytes()[:-1])
    assert verify(copied) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (copied / "verify.json").exists()


def test_a_fingerprint_that_is_not_that_of_the_shards_is_refused(copied: Path, capsys: pytest.CaptureFixture) -> None:
    index = json.loads((copied / "index.json").read_text())
    index["fingerprint"] = hashlib.sha256(b"").hexdigest()
    (copied / "index.json").write_text(json.dumps(index))
    assert verify(copied) == 2
    assert "the fingerprint is not that of its shards' digests" in capsys.readouterr().err


def test_data_without_shards_and_a_list_that_cannot_be_written_are_one_line_each(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("mine")
    for words, message in (
        ([f"data={tmp_path}"], "expected a directory with an index.json, or with train/ and test/"),
        ([f"data={copied}", f"out={tmp_path}/file/list.json"], "cannot write"),
        ([f"data={copied}", "workers=-2"], "workers=-2: expected -1 to 1024"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
