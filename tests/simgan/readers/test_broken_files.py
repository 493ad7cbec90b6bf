"""Broken files of every published data set end ``simgan.pack`` with exit code 2 and one line, and leave nothing that
looks packed; once they are repaired, the same command packs them."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cluster_jobs.data.shards import Shards
from simgan.pack import main
from simgan.readers.mpiigaze import load
from simgan.readers.nyu import joints as frames
from tests.processes import ROOT
from tests.simgan.readers.test_gaze_readers import write_mpiigaze, write_unityeyes
from tests.simgan.readers.test_nyu import write_split

DAY = "Data/Normalized/p00/day01.mat"
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole data set for every reader; to be copied."""
    root = tmp_path_factory.mktemp("originals")
    (root / "unityeyes").mkdir()
    for number in range(1, 4):
        write_unityeyes(root / "unityeyes", number)
    for person in ("p00", "p14"):
        write_mpiigaze(root / "mpiigaze" / "Data" / "Normalized" / person / "day01.mat", 2, 0)
    for split in ("train", "test"):
        write_split(root / "nyu" / split, 1)
    return root


def eyes(**fields: object) -> Damage:
    """A day of MPIIGaze with some fields replaced, or left out where None."""
    whole = {"image": np.zeros((2, 36, 60), np.uint8), "gaze": np.full((2, 3), -0.5), "pose": np.zeros((2, 3))}
    part = {name: value for name, value in (whole | fields).items() if value is not None}
    return lambda root: savemat(root / DAY, {"data": {"left": part, "right": part}})


def joints(**variables: object) -> Damage:
    return lambda root: savemat(root / "train" / "joint_data.mat", variables)


def written(name: str, content: bytes) -> Damage:
    return lambda root: (root / name).write_bytes(content)


def unity(**changes: object) -> Damage:
    return lambda root: write_unityeyes(root, 2, **changes)


def rendered(mode: str) -> Damage:
    return lambda root: Image.new(mode, (640, 480)).save(root / "train" / "synthdepth_1_0000001.png")


BROKEN: dict[str, tuple[str, Damage, list[str]]] = {
    "no directory": ("unityeyes", shutil.rmtree, ["no such directory"]),
    "no JSON": ("unityeyes", written("2.json", b'{"a": '), ["2.json", "no readable JSON"]),
    "JSON without end": ("unityeyes", written("2.json", b"[" * 100_000), ["2.json", "no readable JSON"]),
    "long value": ("unityeyes", unity(head_pose="(" * 5_000), ["2.json", "head_pose", "(x, y, z)"]),
    "huge number": ("unityeyes", unity(head_pose=f"(1{'0' * 400}, 2, 3)"), ["2.json", "head_pose", "(x, y, z)"]),
    "no direction": (
        "unityeyes",
        unity(eye_details={"look_vec": "(0, 0, 0, 0)"}),
        ["2.json", "look_vec is zero, expected a direction"],
    ),
    "no picture": ("unityeyes", lambda root: (root / "2.jpg").unlink(), ["2.jpg", "no readable picture"]),
    "no directory of days": ("mpiigaze", shutil.rmtree, ["expected Data/Normalized/pXX/dayYY.mat", "found none"]),
    "no MATLAB file": ("mpiigaze", written(DAY, b"hello"), [DAY, "expected a MATLAB file"]),
    "empty": ("mpiigaze", written(DAY, b""), [DAY, "expected a MATLAB file"]),
    "zeros": ("mpiigaze", written(DAY, bytes(300)), [DAY, "expected a MATLAB file"]),
    "no data": ("mpiigaze", lambda root: savemat(root / DAY, {"x": 1}), [DAY, "it has no variable 'data'"]),
    "no gaze": ("mpiigaze", eyes(gaze=None), [DAY, "gaze"]),
    "gaze of text": ("mpiigaze", eyes(gaze=np.array([["a"] * 3] * 2, object)), [DAY, "gaze (2, 3) object"]),
    "gaze of no number": ("mpiigaze", eyes(gaze=np.full((2, 3), np.nan)), ["p00/day01.mat:left[0]", "nan"]),
    "gaze of zeros": ("mpiigaze", eyes(gaze=np.zeros((2, 3))), ["p00/day01.mat:left[0]", "expected a direction"]),
    "no pixels": ("mpiigaze", eyes(image=np.zeros((2, 0, 60), np.uint8)), [DAY, "image (2, 0, 60) uint8"]),
    "no eyes": (
        "mpiigaze",
        eyes(image=np.zeros((0, 36, 60), np.uint8), gaze=np.zeros((0, 3)), pose=np.zeros((0, 3))),
        ["p00", "no eyes in its files"],
    ),
    "no splits": ("nyu", shutil.rmtree, ["expected the directories train and test"]),
    "no joints": ("nyu", joints(x=1), ["joint_data.mat", "it has no variable 'joint_uvd'"]),
    "no frames": ("nyu", joints(joint_uvd=np.zeros((3, 0, 36, 3))), ["joint_data.mat", "no frames"]),
    "joints of no number": ("nyu", joints(joint_uvd=np.full((3, 1, 36, 3), np.nan)), ["joint_uvd of frame 1"]),
    "colours with opacity": ("nyu", rendered("RGBA"), ["synthdepth_1_0000001.png", "RGBA of 640 × 480, expected RGB"]),
    "grey": ("nyu", rendered("I;16"), ["synthdepth_1_0000001.png", "I;16 of 640 × 480, expected RGB"]),
}


def words(source: str, path: Path, out: Path) -> list[str]:
    return [f"source={source}", f"path={path}", f"out={out}", "workers=0"]


def forget() -> None:
    """A command is a process of its own and reads its files anew."""
    load.cache_clear()
    frames.cache_clear()


def left(out: Path) -> list[str]:
    """What looks finished or half-written."""
    return [path.name for path in out.rglob("*") if path.name == "index.json" or path.suffix == ".tmp"]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_input_ends_with_2_and_one_line_and_packs_once_it_is_repaired(
    name: str, originals: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, damage, told = BROKEN[name]
    path, out = tmp_path / source, tmp_path / "out"
    shutil.copytree(originals / source, path)
    damage(path)
    assert main(words(source, path, out)) == 2
    error = capfd.readouterr().err
    assert len(error.splitlines()) == 1 and all(part in error for part in told) and len(error) < 900, error
    assert not left(out)
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(originals / source, path)
    forget()
    assert main(words(source, path, out)) == 0 and left(out) == ["index.json"] * 2


@pytest.mark.parametrize(("name", "kept"), [("no JSON", 2), ("gaze of zeros", 0), ("joints of no number", 0)])
def test_samples_that_cannot_be_read_are_left_out_when_allowed(
    name: str, kept: int, originals: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, damage, _ = BROKEN[name]
    path, out = tmp_path / source, tmp_path / "out"
    shutil.copytree(originals / source, path)
    damage(path)
    asked = words(source, path, out)
    assert main(asked) == 2 and "leave them out with allow_bad=" in capfd.readouterr().err
    code = main([*asked, "allow_bad=4"])
    if kept:
        assert code == 0 and sum(Shards(out / split).count for split in ("train", "test")) == kept
    else:  # nothing is left of a split
        assert code == 2 and "are no pictures" in capfd.readouterr().err and not left(out)


def test_a_drawn_source_has_no_use_for_allow_bad(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["source=eyes", "allow_bad=1", f"out={tmp_path / 'out'}"]) == 2
    assert "allow_bad=1: source=eyes has no use for it" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "no JSON",
        *(
            pytest.param(each, marks=pytest.mark.cluster)
            for each in ("no directory", "no gaze", "colours with opacity")
        ),
    ],
)
def test_a_user_sees_one_line_on_stderr(name: str, originals: Path, tmp_path: Path) -> None:
    source, damage, told = BROKEN[name]
    shutil.copytree(originals / source, tmp_path / source)
    damage(tmp_path / source)
    command = [sys.executable, "-m", "simgan.pack", *words(source, tmp_path / source, tmp_path / "out")]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=250)
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1
    assert all(part in ended.stderr for part in told) and not left(tmp_path / "out")
