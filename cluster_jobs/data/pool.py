"""A pool: labelled shards that a command made, and ``pool.json``, which says what made them.

An unfinished pool has ``pool.json`` and some shards; with ``index.json`` it is finished. Processes share out the
shards, each of which is whole or absent, so that a killed command loses only the shards being written. The images are
numbered from 0 over all shards: :func:`shard_samples` gives the numbers in a shard, and
:func:`cluster_jobs.data.shard_writer.sample_key` makes a number the sample's key.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from cluster_jobs.core.files import parse_json
from cluster_jobs.data.shard_writer import SHARD_SAMPLES, finish_index
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores.base import child

POOL_FILE = "pool.json"
Item = TypeVar("Item")


class Ranks(Protocol):
    """The part of :class:`cluster_jobs.distributed.job.Job` that is used here; this package may not import it."""

    rank: int
    world: int

    def barrier(self) -> None: ...

    def track(self, items: Iterable[Item], total: int, unit: str, what: str = "", weight: int = 1) -> Iterator[Item]:
        """Yields the items behind a progress bar."""


def read_pool(shards: Shards) -> dict[str, Any] | None:
    """What ``pool.json`` says; None for shards that are no pool. Raises UserError where it is damaged."""
    content = shards.store.document(POOL_FILE)
    return None if content is None else parse_json(content, child(str(shards.directory), POOL_FILE))


def read_labels(shards: Shards) -> tuple[np.ndarray, list[str]]:
    """The labels stored in the shards. For pools, whose labels are not secret, and for the owner of a data set.

    Returns:
        (count,) int32, -1 for a sample without one; the names of the classes, a number for one without a name.
    """
    labels = np.asarray(shards.hidden_labels())
    return labels, [*shards.classes, *map(str, range(len(shards.classes), int(labels.max(initial=-1)) + 1))]


def shard_sizes(count: int) -> list[int]:
    """How many samples each shard of a pool of ``count`` samples holds."""
    return [min(SHARD_SAMPLES, count - first) for first in range(0, count, SHARD_SAMPLES)]


def shard_samples(number: int, count: int) -> range:
    """The samples of shard ``number`` of a pool of ``count`` samples."""
    first = number * SHARD_SAMPLES
    return range(first, min(first + SHARD_SAMPLES, count))


def write_missing(
    numbers: Iterable[int],
    done: Callable[[int], bool],
    write: Callable[[int], None],
    *,
    sizes: Sequence[int],
    job: Ranks,
    what: str,
) -> None:
    """Writes this rank's share of the missing shards, with a progress bar. Every rank must call this.

    Args:
        numbers: the shards that the command is to write.
        done: whether a shard is there already.
        write: makes a shard.
        sizes: the samples of each shard of the pool.
        what: names the progress bar.
    """
    missing = [number for number in numbers if not done(number)]
    job.barrier()  # every rank has looked before one adds a shard, so that all share out the same list
    total = sum(sizes[number] for number in missing)
    for number in job.track(missing[job.rank :: job.world], total, "images", what, max(sizes) * job.world):
        write(number)


def finish_pool(directory: Path, shards: int, classes: Sequence[str], shape: tuple[int, int, int]) -> None:
    """Writes the index, which makes the pool a finished one.

    Args:
        shards: how many there are; all are done.
        shape: (C, H, W) of every image.
    """
    channels, height, width = shape
    finish_index(directory, shards, classes=classes, size=(height, width), mode="L" if channels == 1 else "RGB")
