"""The NYU reader on small files in the genuine formats: packed depth, MATLAB arrays of three views."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cluster_jobs.data.shards import Shards
from simgan.conventions.depth import to_depth
from simgan.pack import main
from simgan.readers.nyu import EVALUATED, Nyu, nyu
from simgan.simulators.hand_skeleton import JOINT_NAMES
from tests.processes import fork

# As the data set's own script writes them.
NAMES = [
    *(f"F{finger}_KNU{part}_{side}" for finger in (1, 2, 3, 4) for part in (3, 2, 1) for side in "AB"),
    *(f"TH_KNU{part}_{side}" for part in (3, 2, 1) for side in "AB"),
    *(f"PALM_{number}" for number in range(1, 7)),
]
LEFT, TOP, NEAR = 300, 180, 712  # the hand: a block of 90 × 70 pixels, deeper to the right
WALL = 1800


def write_picture(file: Path, depth: np.ndarray) -> None:
    packed = np.stack([np.full(depth.shape, 7), depth >> 8, depth & 255], -1)  # red is nobody's
    Image.fromarray(packed.astype(np.uint8)).save(file)


def write_split(directory: Path, count: int = 2, seed: int = 0) -> np.ndarray:
    """Writes a split; returns joint_uvd."""
    directory.mkdir(parents=True)
    random = np.random.default_rng(seed)
    uvd = random.uniform([250, 150, 650], [400, 280, 800], (3, count, 36, 3))
    names = np.array(NAMES, object)[None]
    savemat(directory / "joint_data.mat", {"joint_names": names, "joint_uvd": uvd, "joint_xyz": uvd * 0})
    for frame in range(1, count + 1):
        hand = np.zeros((480, 640), np.int64)
        hand[TOP : TOP + 70, LEFT : LEFT + 90] = NEAR + frame + np.arange(90) // 2
        write_picture(directory / f"synthdepth_1_{frame:07d}.png", hand)
        write_picture(directory / f"depth_1_{frame:07d}.png", np.where(hand > 0, hand + 5, WALL))
    return uvd


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, split in enumerate(("train", "test")):
        write_split(tmp_path / "nyu" / split, 2 - number, number)
    return tmp_path / "nyu"


def test_the_evaluated_joints_are_the_ones_that_the_skeleton_names() -> None:
    names = [NAMES[joint] for joint in EVALUATED]
    assert len(names) == len(JOINT_NAMES) == 14
    assert [name[:2] for name in names] == ["F1"] * 2 + ["F2"] * 2 + ["F3"] * 2 + ["F4"] * 2 + ["TH"] * 3 + ["PA"] * 3
    assert [name for name in names if "KNU3_A" in name] == [
        f"{digit}_KNU3_A" for digit in ("F1", "F2", "F3", "F4", "TH")
    ]
    assert [name.split()[0] for name in JOINT_NAMES[:8:2]] == ["little", "ring", "middle", "index"]


@pytest.mark.parametrize(("domain", "offset"), [("simulator", 0), ("camera", 5)])
def test_depth_is_unpacked_and_the_hand_cut_out_around_its_middle(root: Path, domain: str, offset: int) -> None:
    image, label, annotation = nyu(root, domain, 224)["train"].read(1)
    assert image.shape == (1, 224, 224) and image.dtype == np.uint8 and label is None and annotation is not None
    mean = NEAR + 2 + (np.arange(90) // 2).mean()
    assert annotation["centre_mm"][2] == pytest.approx(mean, abs=0.01)
    rows, columns = np.nonzero(image[0])
    scale = 224 * mean / 300 / np.array([588.235, 587.084])  # the wall is cut off; only the hand is left
    assert np.ptp(columns) + 1 == pytest.approx(90 * scale[0], abs=1) and np.ptp(rows) + 1 == pytest.approx(
        70 * scale[1], abs=1
    )
    assert columns.mean() == pytest.approx(111.5, abs=0.6) and rows.mean() == pytest.approx(111.5, abs=0.6)
    depth = to_depth(image[0])[112]
    found = depth[np.isfinite(depth)]
    assert found[0] == pytest.approx(NEAR + 2 - mean + offset, abs=1.2)
    assert found[-1] == pytest.approx(NEAR + 2 + 44 - mean + offset, abs=1.2)


def test_joints_are_14_of_the_first_view_in_the_crops_pixels(root: Path) -> None:
    uvd = write_split(root / "other", 2, 7)
    source = Nyu(root / "other", "camera", 224)
    _, _, annotation = source.read(0)
    assert annotation is not None
    joints = np.array(annotation["joints"])
    u, v, d = LEFT + 44.5, TOP + 34.5, annotation["centre_mm"][2]
    wanted = uvd[0, 0, list(EVALUATED)]
    assert np.allclose(joints[:, 0], (wanted[:, 0] - u) * 224 * d / (300 * 588.235) + 111.5, atol=0.02)
    assert np.allclose(joints[:, 1], (wanted[:, 1] - v) * 224 * d / (300 * 587.084) + 111.5, atol=0.02)
    assert np.allclose(joints[:, 2], wanted[:, 2] - d, atol=0.02)
    assert annotation["centre_mm"][0] == pytest.approx((u - 320) * d / 588.235, abs=0.01)


def test_packing_writes_both_splits(root: Path, tmp_path: Path) -> None:
    words = ["source=nyu", f"path={root}", "domain=camera", "size=32", f"out={tmp_path / 'out'}", "workers=0"]
    assert main(words) == 0
    assert [Shards(tmp_path / "out" / split).count for split in ("train", "test")] == [2, 1]
    shards = Shards(tmp_path / "out" / "train")
    image, _, annotation = nyu(root, "camera", 32)["train"].read(1)
    assert np.array_equal(shards.image(1), image) and shards.annotation(1) == annotation


@pytest.mark.parametrize("changed", ["train/depth_1_0000002.png", "test/synthdepth_1_0000001.png"])
def test_a_picture_that_changes_after_packing_is_noticed(
    root: Path, tmp_path: Path, changed: str, capsys: pytest.CaptureFixture
) -> None:
    words = ["source=nyu", f"path={root}", "domain=camera", "size=32", f"out={tmp_path / 'out'}", "workers=0"]
    assert main(words) == 0 and main(words) == 0
    os.utime(root / changed, ns=(1, 1))
    assert main(words) == 2
    assert "files have changed (size or time)" in capsys.readouterr().err


Damage = Callable[[Path], object]


def _remove(name: str) -> Damage:
    return lambda root: (root / "train" / name).unlink()


def _write(name: str, content: bytes) -> Damage:
    return lambda root: (root / "train" / name).write_bytes(content)


def _joints(array: object) -> Damage:
    return lambda root: savemat(root / "train" / "joint_data.mat", {"joint_uvd": array})


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_remove("synthdepth_1_0000002.png"), ["synthdepth_1_0000002.png", "no such file"]),
        (_remove("depth_1_0000001.png"), ["depth_1_0000001.png", "no such file"]),
        (_remove("joint_data.mat"), ["joint_data.mat", "expected a MATLAB file"]),
        (_write("joint_data.mat", b"nothing of the kind"), ["joint_data.mat", "expected a MATLAB file"]),
        (_write("joint_data.mat", bytes(200)), ["joint_data.mat", "expected a MATLAB file"]),
        (_joints(np.zeros((3, 2, 21, 3))), ["joint_data.mat", "3 × 2 × 21 × 3", "36 joints"]),
        (_write("depth_1_0000002.png", b"\x89PNG\r\n\x1a\n broken"), ["depth_1_0000002.png", "expected a PNG"]),
        (
            lambda root: Image.new("L", (640, 480)).save(root / "train" / "depth_1_0000002.png"),
            ["depth_1_0000002.png", "L of 640 × 480", "expected RGB"],
        ),
        (
            lambda root: Image.new("RGB", (640, 480)).save(root / "train" / "synthdepth_1_0000001.png"),
            ["synthdepth_1_0000001.png", "0 pixels nearer than 2000 mm", "expected a rendered hand"],
        ),
    ],
)
def test_a_broken_file_is_refused_by_name_with_exit_code_2(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: Damage, told: list[str]
) -> None:
    damage(root)
    words = ["source=nyu", f"path={root}", "domain=camera", "size=32", f"out={tmp_path / 'out'}", "workers=0"]
    assert main(words) == 2
    output = capfd.readouterr().err
    for part in told:
        assert part in output, output
    assert len(output.splitlines()) == 1
    assert not list((tmp_path / "out").rglob("index.json"))


def test_a_directory_without_splits_is_refused(tmp_path: Path) -> None:
    ended = fork(tmp_path / "log", "simgan.pack", "source=nyu", f"path={tmp_path}", f"out={tmp_path / 'out'}")
    assert ended.code == 2 and "expected the directories train and test" in ended.output
