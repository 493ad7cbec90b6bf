"""Tiny shards of noise, with uneven counts so that nothing divides, and tars as others write them."""

import io
import tarfile
from pathlib import Path

import numpy as np

from cluster_jobs.data.images import Size, encode_png, height_and_width
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard

COUNTS = (7, 3, 11)
BLOCK = 4096  # bytes, two tiny samples


def tiny_images(count: int = sum(COUNTS), size: Size = 8, channels: int = 1) -> np.ndarray:
    """Noise, uint8 (count, channels, height, width), the same every time."""
    return np.random.default_rng(0).integers(0, 256, (count, channels, *height_and_width(size))).astype(np.uint8)


def write_tiny_shards(directory: Path, counts: tuple[int, ...] = COUNTS, *, size: Size = 8, channels: int = 1) -> Path:
    """Writes finished shards of noise in three classes; sample i has the key ``%08d`` of i and the class i % 3."""
    images = tiny_images(sum(counts), size, channels)
    first = 0
    for number, count in enumerate(counts):
        samples = [Sample(f"{i:08d}", encode_png(images[i]), label=i % 3) for i in range(first, first + count)]
        write_shard(directory, number, samples)
        first += count
    finish_index(directory, len(counts), classes=["a", "b", "c"], size=size, mode="L" if channels == 1 else "RGB")
    return directory


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    """A tar as somebody else might write it: in pax format, with owners and times."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(content), 1_700_000_000, "somebody"
            tar.addfile(info, io.BytesIO(content))
    return path


def files_below(directory: Path) -> dict[str, bytes]:
    """Every file below a directory by its relative path, with its content."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
