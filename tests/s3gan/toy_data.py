"""A tiny training set of 32 px and its label tables, made without the commands that make real ones; a tiny run."""

from pathlib import Path

import numpy as np

from cluster_jobs.data.images import encode_png
from cluster_jobs.data.label_table import LabelTable, write_table
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards

CLASSES = ["left", "right", "both"]
COUNTS = (20, 9, 19)  # samples a shard
TINY = [
    "network=biggan_light",
    "width=2",
    "batch=16",
    "total_nimg=160",
    "log_nimg=16",
    "checkpoint_nimg=48",
    "sample_nimg=96",
    "threads=1",
]


def make_data(directory: Path, *, channels: int = 1, hidden: bool = True, seed: int = 0) -> Shards:
    """48 images of 32 px whose class is the side that is bright; with or without their `.cls`."""
    random = np.random.RandomState(seed)
    number = 0
    for shard, count in enumerate(COUNTS):
        samples = []
        for _ in range(count):
            image = random.randint(0, 60, (channels, 32, 32)).astype(np.uint8)
            label = number % len(CLASSES)
            image[:, :, :16] += np.uint8(150 * (label != 1))
            image[:, :, 16:] += np.uint8(150 * (label != 0))
            samples.append(Sample(f"{number:08d}", encode_png(image), label=label if hidden else None))
            number += 1
        write_shard(directory, shard, samples)
    finish_index(directory, len(COUNTS), classes=CLASSES, size=32, mode="L" if channels == 1 else "RGB")
    return Shards(directory)


def make_table(path: Path, shards: Shards, *, origin: str = "true", made_by: str = "reveal", count: int = 0) -> Path:
    """The labels of the first `count` samples (0: all)."""
    count = count or len(shards)
    labels = np.arange(count, dtype=np.int32) % len(CLASSES)
    metadata = {"classes": CLASSES, "method": made_by, "fingerprint": shards.fingerprint}
    table = LabelTable(
        shards.keys(0, count), labels, np.full(count, origin), np.ones(count, np.float32), None, metadata
    )
    write_table(path, table)
    return path
