"""Shards come back as they were written, by us or by somebody else."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import (
    Sample,
    finish_index,
    index_shard,
    sample_key,
    shard_done,
    write_index_part,
    write_shard,
)
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores import local as local_store
from cluster_jobs.packing.sources import decode
from tests.cluster_jobs.tiny import COUNTS, files_below, tar_of, tiny_images, write_tiny_shards


def encoded(pixels: np.ndarray, kind: str, **options: int | bool) -> bytes:
    """An image file of the pixels (C, H, W), C = 1, 3 or 4."""
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def write_one_shard(directory: Path, samples: list[Sample], *, size: int = 8, mode: str = "L") -> Shards:
    write_shard(directory, 0, samples)
    finish_index(directory, 1, classes=["a", "b", "c"], size=size, mode=mode)
    return Shards(directory)


# --- what is written is what is read


@pytest.mark.parametrize("channels", [1, 3])
def test_every_sample_comes_back_with_its_pixels_key_and_label(tmp_path: Path, channels: int) -> None:
    shards = Shards(write_tiny_shards(tmp_path, channels=channels))
    images = tiny_images(channels=channels)
    assert (len(shards), shards.count, shards.channels, shards.size) == (21, 21, channels, 8)
    assert shards.classes == ["a", "b", "c"]
    assert shards.shard_counts.tolist() == list(COUNTS)
    for index in range(len(shards)):
        assert np.array_equal(shards.image(index), images[index])
    assert shards.hidden_labels().tolist() == [i % 3 for i in range(21)]


def test_a_key_is_the_shard_and_the_running_number(tiny: Shards) -> None:
    assert tiny.key(0) == "000000/00000000"
    assert tiny.key(7) == "000001/00000007"
    assert tiny.key(20) == "000002/00000020"
    assert tiny.keys() == [tiny.key(index) for index in range(21)]
    assert tiny.keys(6, 8) == ["000000/00000006", "000001/00000007"]


def test_the_key_of_a_numbered_sample_has_eight_digits() -> None:
    assert [sample_key(0), sample_key(12345)] == ["00000000", "00012345"]


def test_plain_tar_and_plain_webdataset_read_the_shards(tiny_directory: Path) -> None:
    with tarfile.open(tiny_directory / "000001.tar") as tar:
        names = tar.getnames()
        assert names == [f"{i:08d}.{kind}" for i in (7, 8, 9) for kind in ("png", "cls")]
        content = tar.extractfile("00000008.cls")
        assert content is not None and content.read() == b"2"
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(tiny_directory.glob("*.tar"))]
    samples = list(
        webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("pil").to_tuple("png", "cls")
    )
    assert [label for _, label in samples] == [i % 3 for i in range(21)]
    assert np.array_equal(np.asarray(samples[13][0].convert("L")), tiny_images()[13, 0])


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = write_tiny_shards(tmp_path / "a"), write_tiny_shards(tmp_path / "b")
    assert files_below(first) == files_below(second)
    assert sorted(files_below(first)) == sorted(
        ["000000.tar", "000001.tar", "000002.tar", "index.bin", "index.json", "keys.bin", "labels.bin"]
    )


@pytest.mark.parametrize(("kind", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("JPEG", "jpeg"), ("WEBP", "webp")])
def test_png_jpeg_and_webp_are_read(tmp_path: Path, kind: str, extension: str) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 16).astype(np.uint8), (3, 16, 16))
    shards = write_one_shard(tmp_path, [Sample("0", encoded(ramp, kind, quality=95), extension)], size=16, mode="RGB")
    assert np.abs(shards.image(0).astype(int) - ramp).max() <= (0 if kind == "PNG" else 6)
    assert shards.encoded(0) == encoded(ramp, kind, quality=95)


def test_a_photo_that_was_taken_sideways_is_read_upright_as_packing_a_folder_reads_it(tmp_path: Path) -> None:
    sideways = Image.fromarray(np.vstack([np.full((8, 16), 255), np.zeros((8, 16))]).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright: what was on top is on the right
    buffer = io.BytesIO()
    sideways.save(buffer, "JPEG", quality=95, exif=exif)
    shards = write_one_shard(tmp_path, [Sample("0", buffer.getvalue(), "jpg")], size=16)
    assert shards.image(0)[0, :, 9:].min() > 240 and shards.image(0)[0, :, :7].max() < 15
    assert np.array_equal(shards.image(0), decode(buffer.getvalue(), 16, "L"))


def test_transparency_lies_on_white_and_other_sizes_are_cropped_in_the_middle(tmp_path: Path) -> None:
    clear = np.zeros((4, 8, 8), np.uint8)
    wide = np.zeros((1, 8, 24), np.uint8)
    wide[:, :, 8:16] = 200
    shards = write_one_shard(tmp_path, [Sample("0", encoded(clear, "PNG")), Sample("1", encoded(wide, "PNG"))])
    assert (shards.image(0) == 255).all() and shards.image(0).shape == (1, 8, 8)
    assert (shards.image(1) == 200).all()


def test_a_sample_without_a_label_reads_minus_one(tmp_path: Path) -> None:
    picture = encode_png(tiny_images()[0])
    shards = write_one_shard(
        tmp_path, [Sample("0", picture, label=2), Sample("1", picture), Sample("2", picture, label=0)]
    )
    assert shards.hidden_labels().tolist() == [2, -1, 0]


def test_annotations_come_back_and_are_none_where_absent(tmp_path: Path) -> None:
    picture, note = encode_png(tiny_images()[0]), {"file": "Ünï/a b.png", "gaze": [0.1, -2.5]}
    shards = write_one_shard(tmp_path, [Sample("0", picture, annotation=note), Sample("1", picture, label=1)])
    assert shards.annotation(0) == note and shards.annotation(1) is None


def test_the_fingerprint_covers_keys_and_images_but_never_labels(tmp_path: Path) -> None:
    images = [encode_png(image) for image in tiny_images()[:3]]

    def fingerprint(name: str, *samples: Sample) -> str:
        return write_one_shard(tmp_path / name, list(samples)).fingerprint

    plain = [Sample(str(i), image, label=i) for i, image in enumerate(images)]
    relabelled = [Sample(sample.key, sample.image, label=0, annotation={"x": 1}) for sample in plain]
    unlabelled = [Sample(sample.key, sample.image) for sample in plain]
    base = fingerprint("plain", *plain)
    assert fingerprint("relabelled", *relabelled) == base == fingerprint("unlabelled", *unlabelled)
    assert fingerprint("renamed", Sample("x", images[0]), *plain[1:]) != base
    assert fingerprint("repainted", Sample("0", images[1]), *plain[1:]) != base
    assert fingerprint("reordered", *plain[::-1]) != base
    assert fingerprint("shorter", *plain[:2]) != base


def test_only_so_many_shards_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_store, "OPEN_FILES", 2)
    shards = Shards(write_tiny_shards(tmp_path, counts=(1,) * 9))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    for index in [*range(9), 3, 3, 0]:
        assert np.array_equal(shards.image(index), tiny_images(9)[index])
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 2


@pytest.mark.parametrize("name", ["a b", "é=ü", "it's", '"q"', "[1],{2}", "${x}", "%s", "a#b?c&d"])
def test_directories_with_odd_names_work(tmp_path: Path, name: str) -> None:
    shards = Shards(write_tiny_shards(tmp_path / name, counts=(2, 1)))
    assert np.array_equal(shards.image(2), tiny_images(3)[2])


# --- interrupted and resumed writing


def test_a_shard_is_done_when_it_and_its_part_belong_together(tmp_path: Path) -> None:
    samples = [Sample("0", encode_png(tiny_images()[0]))]
    assert not shard_done(tmp_path, 0)
    write_shard(tmp_path, 0, samples)
    assert shard_done(tmp_path, 0) and not shard_done(tmp_path, 1)
    whole = (tmp_path / "000000.tar").read_bytes()
    (tmp_path / "000000.tar").write_bytes(whole[:-512])
    assert not shard_done(tmp_path, 0)
    write_shard(tmp_path, 0, samples)
    assert shard_done(tmp_path, 0) and (tmp_path / "000000.tar").read_bytes() == whole


def test_an_interrupted_write_leaves_no_tar_and_the_next_one_no_trace_of_it(tmp_path: Path) -> None:
    sample = Sample("0", encode_png(tiny_images()[0]))

    def interrupted():
        yield sample
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, 0, interrupted())
    assert not list(tmp_path.glob("*.tar")) and not shard_done(tmp_path, 0)
    with pytest.raises(UserError, match="no index.json"):
        Shards(tmp_path)
    write_one_shard(tmp_path, [sample])
    assert sorted(files_below(tmp_path)) == ["000000.tar", "index.bin", "index.json", "keys.bin", "labels.bin"]


# --- shards that somebody else wrote


def test_shards_that_lie_elsewhere_are_indexed_in_place(tmp_path: Path) -> None:
    images, theirs, ours = tiny_images(channels=3), tmp_path / "their data", tmp_path / "index here"
    theirs.mkdir()
    tars = [
        tar_of(
            theirs / f"part-{number}.tar",
            {
                f"./bild {number}ä.cls": b" 1\n",
                f"./bild {number}ä.JPG": encoded(images[number], "JPEG"),
                f"sub.dir/{number}.webp": encoded(images[number], "WEBP", lossless=True),
                f"sub.dir/{number}.json": b'{"old": "name"}',
            },
        )
        for number in range(2)
    ]
    before = files_below(theirs)
    for number, path in enumerate(tars):
        write_index_part(ours, number, index_shard(path))
    finish_index(ours, 2, classes=["x", "y"], size=8, mode="RGB", files=[str(tars[0]), f"../{theirs.name}/part-1.tar"])
    shards = Shards(ours)
    assert shards.keys() == ["part-0/./bild 0ä", "part-0/sub.dir/0", "part-1/./bild 1ä", "part-1/sub.dir/1"]
    assert shards.hidden_labels().tolist() == [1, -1, 1, -1]
    assert np.array_equal(shards.image(3), images[1]) and shards.annotation(3) == {"old": "name"}
    assert files_below(theirs) == before
    assert sorted(files_below(ours)) == ["index.bin", "index.json", "keys.bin", "labels.bin"]


def test_a_hostile_tar_writes_nothing_anywhere(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    picture = encode_png(tiny_images()[0])
    path = tar_of(inside / "evil.tar", {"../../escaped.png": picture, "/tmp/../absolute.png": picture})
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = files_below(tmp_path)
    assert index_shard(path).keys == ["../../escaped", "/tmp/../absolute"]
    assert files_below(tmp_path) == before
