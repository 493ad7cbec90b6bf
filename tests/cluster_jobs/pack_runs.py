"""Packing in this process: pictures to pack, the command, and what it wrote."""

import tarfile
from pathlib import Path

from PIL import Image

from cluster_jobs.pack import main
from tests.cluster_jobs.pictures import encode, noise, save

HOSTILE = "my im=ages 'été' \"x\" [a],{b} ${c}"


def pictures(root: Path, classes: dict[str, int], *, channels: int = 3, side: int = 32) -> Path:
    for place, (name, count) in enumerate(classes.items()):
        for number in range(count):
            array = noise(side, side, channels, seed=100 * place + number)
            save(root / name / f"{number}.png", array[..., 0] if channels == 1 else array)
    return root


def bad_folder(tmp_path: Path) -> Path:
    path = pictures(tmp_path / "images", {"a": 12})
    (path / "a" / "nötes.txt").write_text("no picture")
    broken = path / "a" / "bro=ken.jpg"
    content = encode(Image.fromarray(noise(64, 64, 3)), "JPEG")
    broken.write_bytes(content[: len(content) // 2])
    return path


def pack(*words: str) -> int:
    return main(["workers=0", *words])


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def members(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as opened:
        return {m.name: opened.extractfile(m).read() for m in opened}  # type: ignore[union-attr]
