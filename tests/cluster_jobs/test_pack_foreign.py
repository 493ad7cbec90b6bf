"""``pack`` indexes shards that somebody else wrote, where they lie."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster_jobs.data.shard_writer import PARTS, Sample, write_shard
from cluster_jobs.data.shards import Shards
from tests.cluster_jobs.pack_runs import members, pack, snapshot
from tests.cluster_jobs.pictures import encode, noise


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


def test_sixteen_bit_grey_is_read_alike_from_a_folder_and_from_indexed_shards(tmp_path: Path) -> None:
    values = np.arange(1 << 16).reshape(256, 256)
    png = encode(Image.fromarray(values.astype(np.uint16)), "PNG")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "all.png").write_bytes(png)
    write_shard(tmp_path / "wds", 0, [Sample("all", png, "png")])
    shutil.rmtree(tmp_path / "wds" / PARTS)  # as somebody else's shards have no index
    assert pack("source=folder", f"path={tmp_path}/images", f"out={tmp_path}/packed", "size=256") == 0
    assert pack("source=webdataset", f"path={tmp_path}/wds", "size=256") == 0
    expected = np.round(values / 257).astype(np.uint8)[None]
    for directory in (tmp_path / "packed" / "train", tmp_path / "wds"):
        assert np.array_equal(Shards(directory).image(0), expected), directory
