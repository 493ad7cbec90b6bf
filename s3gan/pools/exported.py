"""What an export writes: the labelled samples of shards, one picture at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster_jobs.core.progress import track
from cluster_jobs.data.shards import Shards

CHUNK = 1000  # images between two looks at the progress


@dataclass(frozen=True)
class Exported:
    """Samples `indices` (n,) of shards with `labels` (n,) int64 into `class_names`; `identity` differs where an image
    or a label differs."""

    shards: Shards
    indices: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    identity: dict[str, Any]

    def chunks(self, start: int = 0) -> Iterator[range]:
        """Places in `indices` from `start` on, in order, behind a progress bar."""
        starts = range(start, len(self.indices), CHUNK)
        for first in track(starts, len(self.indices) - start, "images", "exporting", CHUNK):
            chunk = range(first, min(first + CHUNK, len(self.indices)))
            self.shards.prefetch(self.indices[chunk.start : chunk.stop])
            yield chunk

    def image(self, number: int) -> np.ndarray:
        """uint8 (C, H, W). Raises DamagedSample naming a sample that cannot be decoded."""
        return self.shards.image(int(self.indices[number]))
