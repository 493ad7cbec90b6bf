"""Plain ``webdataset``, which knows nothing of this project, reads what ``pack`` writes."""

import io
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image
from sklearn.datasets import load_digits

from cluster_jobs.data.shards import Shards
from cluster_jobs.pack import main
from tests.cluster_jobs.pictures import noise, save


def read(directory: Path) -> list[dict]:
    urls = [str(path) for path in sorted(directory.glob("*.tar"))]
    return list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))


def test_webdataset_reads_counts_keys_classes_and_pictures(tmp_path: Path) -> None:
    assert main(["source=digits", f"out={tmp_path}", "workers=0", "shard_samples=500"]) == 0
    targets = load_digits().target
    for split, first, count in (("train", 0, 1437), ("test", 1437, 360)):
        samples, shards = read(tmp_path / split), Shards(tmp_path / split)
        assert [sample["__key__"] for sample in samples] == [f"{number:08d}" for number in range(count)]
        assert [int(sample["cls"]) for sample in samples] == targets[first : first + count].tolist()
        assert [Path(sample["__url__"]).name for sample in samples[::499]] == [
            shards.shard_names[number // 500] for number in range(0, count, 499)
        ]
        for index, sample in enumerate(samples):
            assert sample["png"] == shards.encoded(index)
        picture = np.asarray(Image.open(io.BytesIO(samples[-1]["png"])))
        assert picture.shape == (32, 32) and np.array_equal(picture, shards.image(count - 1)[0])


def test_webdataset_decodes_colour_labels_and_annotations(tmp_path: Path) -> None:
    for name in ("big cat", "été"):
        save(tmp_path / "images" / name / "1.png", noise(32, 32, 3, seed=len(name)))
    save(tmp_path / "images" / "unlabelled.png", noise(32, 32, 3))
    assert main(["source=folder", f"path={tmp_path}/images", f"out={tmp_path}/out", "workers=0"]) == 0
    urls = [str(tmp_path / "out/train/000000.tar")]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"))
    assert {(sample["json"]["file"], sample.get("cls")) for sample in samples} == {
        ("big cat/1.png", 0),
        ("été/1.png", 1),
        ("unlabelled.png", None),
    }
    for sample in samples:
        original = np.asarray(Image.open(tmp_path / "images" / sample["json"]["file"]))
        assert np.array_equal(sample["png"], original)
