"""Readers against files as the data sets hold them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.shards import Shards
from cluster_jobs.packing.sources import NoImage
from simgan.pack import SourceName, SyntheticPackConfig, main
from simgan.readers.mpiigaze import load, mpiigaze
from simgan.readers.unityeyes import UnityEyes

CENTRE = np.array([320.0, 230.0])  # of the iris in the picture, from its top left corner


def write_unityeyes(path: Path, number: int, **changes: Any) -> None:
    """A dark disc on grey, its outline and the lids' margin as UnityEyes writes them: strings, y from the bottom."""
    y, x = np.mgrid[:480, :640] + 0.5
    picture = np.where(np.hypot(x - CENTRE[0], y - CENTRE[1]) < 22, 40, 200).astype(np.uint8)
    Image.fromarray(np.stack([picture] * 3, 2)).save(path / f"{number}.jpg", quality=95)
    turns = np.linspace(0, 2 * np.pi, 32, endpoint=False)

    def texts(radius_x: float, radius_y: float, count: int) -> list[str]:
        chosen = turns[:: 32 // count]
        return [
            f"({CENTRE[0] + radius_x * np.cos(t):.4f}, {480 - CENTRE[1] + radius_y * np.sin(t):.4f}, 9.7071)"
            for t in chosen
        ]

    facts = {
        "interior_margin_2d": texts(60, 25, 16),
        "caruncle_2d": texts(5, 5, 8),
        "iris_2d": texts(22, 22, 32),
        "eye_details": {"look_vec": "(0.3000, 0.4000, -0.8660, 0.0000)", "pupil_size": "0.0321", "iris_size": "0.9"},
        "head_pose": "(355.0000, 170.0000, 0.0000)",
    }
    (path / f"{number}.json").write_text(json.dumps(facts | changes, indent=4))


def test_unityeyes_is_cropped_around_the_eye_with_its_outline(tmp_path: Path) -> None:
    write_unityeyes(tmp_path, 1)
    image, label, annotation = UnityEyes(tmp_path).read(0)
    assert image.shape == (1, 35, 55) and label is None and annotation is not None
    assert np.allclose(annotation["gaze"], np.array([0.3, 0.4, 0.866]) / np.linalg.norm([0.3, 0.4, 0.866]))
    assert np.allclose(annotation["head"], np.radians([5, 10]))
    assert np.allclose(annotation["pupil"], [27, 17], atol=0.01)  # the margin's centre is the crop's
    iris = np.array(annotation["iris"])
    assert iris.shape == (32, 2) and np.isclose(np.ptp(iris[:, 0]), 44 * 55 / 140, atol=0.01)
    dark = np.argwhere(image[0] < 120)
    assert np.allclose(dark.mean(0)[::-1], annotation["pupil"], atol=0.3)
    assert np.isclose(np.ptp(dark[:, 1]) + 1, np.ptp(iris[:, 0]), atol=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"head_pose": "__import__('os').getcwd()"},
        {"iris_2d": ["(1, 2, 3)"]},
        {"eye_details": {}},
        {"eye_details": {"look_vec": "(a, b)"}},
    ],
)
def test_a_broken_json_of_unityeyes_is_refused_by_name(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_unityeyes(tmp_path, 7, **changes)
    with pytest.raises(NoImage, match=r"7\.json"):
        UnityEyes(tmp_path).read(0)


def test_a_missing_or_truncated_picture_of_unityeyes_is_refused_by_name(tmp_path: Path) -> None:
    write_unityeyes(tmp_path, 7)
    (tmp_path / "7.jpg").write_bytes((tmp_path / "7.jpg").read_bytes()[:400])
    with pytest.raises(NoImage, match=r"7\.jpg"):
        UnityEyes(tmp_path).read(0)
    (tmp_path / "7.jpg").unlink()
    with pytest.raises(NoImage, match=r"7\.jpg"):
        UnityEyes(tmp_path).read(0)
    with pytest.raises(UserError, match="found no .json"):
        UnityEyes(tmp_path.parent / tmp_path.name / "..")


def write_mpiigaze(file: Path, count: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """A day as MPIIGaze nests it."""
    random = np.random.default_rng(seed)
    gaze = np.concatenate([random.uniform(-0.3, 0.3, (count, 2)), np.full((count, 1), -0.95)], 1)
    sides = {
        side: {
            "gaze": gaze / np.linalg.norm(gaze, axis=1, keepdims=True),
            "image": random.integers(0, 256, (count, 36, 60), np.uint8),
            "pose": random.uniform(-0.3, 0.3, (count, 3)),
        }
        for side in ("right", "left")
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, {"data": sides, "filenames": np.array([f"{i:04d}.jpg" for i in range(count)], object)})
    return sides


def test_mpiigaze_is_split_by_person_and_right_eyes_are_mirrored(tmp_path: Path) -> None:
    days = tmp_path / "Data" / "Normalized"
    truth = write_mpiigaze(days / "p00" / "day01.mat", 1, 0)
    write_mpiigaze(days / "p01" / "day01.mat", 3, 1)
    splits = mpiigaze(tmp_path, "p01", 36, 60)
    assert {split: len(part) for split, part in splits.items()} == {"train": 2, "test": 6}
    left, right = splits["train"].read(0), splits["train"].read(1)
    assert left[2] is not None and right[2] is not None
    assert np.array_equal(left[0][0], truth["left"]["image"][0])
    assert np.array_equal(right[0][0], truth["right"]["image"][0][:, ::-1])
    assert np.allclose(left[2]["gaze"], truth["left"]["gaze"][0] * (1, -1, -1))
    assert np.allclose(right[2]["gaze"], truth["right"]["gaze"][0] * (-1, -1, -1))
    assert mpiigaze(tmp_path, "p01", 35, 55)["test"].read(0)[0].shape == (1, 35, 55)
    with pytest.raises(UserError, match="test_persons=p05"):
        mpiigaze(tmp_path, "p05", 35, 55)


def test_broken_files_of_mpiigaze_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "p00" / "day01.mat"
    write_mpiigaze(file, 2, 0)
    whole = file.read_bytes()
    cut = tmp_path / "p00" / "day02.mat"
    cut.write_bytes(whole[: len(whole) // 2])
    flat = tmp_path / "p00" / "day03.mat"
    savemat(flat, {"data": {"left": {"image": np.zeros((2, 36, 60), np.uint8)}}})
    odd = tmp_path / "p00" / "day04.mat"
    part = {"image": np.zeros((2, 36, 60), np.uint8), "gaze": np.zeros((1, 3)), "pose": np.zeros((2, 3))}
    savemat(odd, {"data": {"left": part, "right": part}})
    for broken in (cut, flat, odd):
        with pytest.raises(UserError, match=broken.name):
            load(broken)
    with pytest.raises(UserError, match="found none"):
        mpiigaze(tmp_path / "p00", "p00", 35, 55)


def test_both_are_packed_with_their_annotations(tmp_path: Path) -> None:
    (tmp_path / "unity").mkdir()
    for number in range(1, 5):
        write_unityeyes(tmp_path / "unity", number)
    for person in ("p00", "p14"):
        write_mpiigaze(tmp_path / "mpii" / "Data" / "Normalized" / person / "day01.mat", 2, 0)
    for source in ("unity", "mpii"):
        name = SourceName["unityeyes" if source == "unity" else "mpiigaze"]
        main.body(
            SyntheticPackConfig(source=name, path=str(tmp_path / source), out=str(tmp_path / name.name), workers=0)
        )
        shards = Shards(tmp_path / name.name / "test")
        assert shards.shape == (1, 35, 55) and len((shards.annotation(0) or {})["gaze"]) == 3


@pytest.mark.parametrize(
    ("source", "changed"),
    [("unityeyes", "3.jpg"), ("unityeyes", "3.json"), ("mpiigaze", "Data/Normalized/p00/day01.mat")],
)
def test_a_file_that_changes_after_packing_is_noticed(
    tmp_path: Path, source: str, changed: str, capsys: pytest.CaptureFixture
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(1, 5):
        write_unityeyes(files, number)
    for person in ("p00", "p14"):
        write_mpiigaze(files / "Data" / "Normalized" / person / "day01.mat", 2, 0)
    words = [f"source={source}", f"path={files}", f"out={tmp_path / 'out'}", "workers=0"]
    assert main(words) == 0 and main(words) == 0
    os.utime(files / changed, ns=(1, 1))
    assert main(words) == 2
    assert "files have changed (size or time)" in capsys.readouterr().err
