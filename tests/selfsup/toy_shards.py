"""Small shard directories for the tests of this package."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards


def make_shards(
    directory: Path,
    counts: Sequence[int],
    labels: Sequence[int | None],
    classes: Sequence[str] = ("cat", "dog", "éléphant blanc"),
    files: Sequence[str] | None = None,
    images: np.ndarray | None = None,
) -> Shards:
    """Shards of ``counts`` samples each.

    Sample i has ``labels[i]`` (None: no .cls); it shows its label as a shade unless images uint8 (N, 1, H, W) come.
    """
    total = sum(counts)
    assert total == len(labels)
    if images is None:
        shades = np.array([40 + 60 * (label or 0) for label in labels])
        noise = np.random.RandomState(0).randint(0, 40, (total, 1, 8, 8))
        images = (noise + shades[:, None, None, None]).astype(np.uint8)
    start = 0
    for number, count in enumerate(counts):
        samples = [
            Sample(
                key=f"{index:08d}",
                image=encode_png(images[index]),
                label=labels[index],
                annotation={"file": files[index]} if files else None,
            )
            for index in range(start, start + count)
        ]
        write_shard(directory, number, samples)
        start += count
    finish_index(directory, len(counts), classes=list(classes), size=images.shape[-1], mode="L")
    return Shards(directory)
