"""Writes a pool of generated images: its shards, how many images were drawn for each, and how it is finished.

Several processes and several commands, each with a part of the shards, may write it at the same time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import exclusive, make_parent, read_json, write_atomically, write_json
from cluster_jobs.data.images import encode_png
from cluster_jobs.data.pool import POOL_FILE, finish_pool, shard_samples, shard_sizes, write_missing
from cluster_jobs.data.shard_writer import PARTS, Sample, sample_key, shard_done, shard_name, write_shard
from cluster_jobs.distributed.job import Job
from s3gan.pools.rejection import Exhausted, RejectionSampler

# fields of pool.json that may differ when a command resumes the pool: the paths of its inputs (the label table of a
# run's clusters is in the run, which may have moved), circumstances, and results
FREE = ("run", "label_table.path", "versions", "calibrated", "drawn", "kept_rate")


def begin(out: Path, pool: dict[str, Any]) -> None:
    """Writes pool.json; of several commands that begin one pool at the same time the first decides."""
    lock = out / PARTS / "lock"
    make_parent(lock)
    lock.touch()
    with exclusive(lock):
        if not (out / POOL_FILE).is_file():
            write_json(out / POOL_FILE, pool)


def write_shards(out: Path, sampler: RejectionSampler, classes: list[str], part: int, parts: int, job: Job) -> None:
    """This rank's share of the part's shards that are not there yet.

    Raises:
        UserError: the filters keep next to nothing of a class; on all ranks.
    """
    labels = sampler.labels
    sizes = shard_sizes(len(labels))

    def write(number: int) -> None:
        drawn = np.zeros(len(classes), np.int64)
        write_shard(out, number, _shard(sampler, number, drawn))
        _write_drawn(out, number, drawn)

    exhausted = torch.tensor([-1, 0], device=job.device)
    try:
        numbers = range(part, len(sizes), parts)
        write_missing(numbers, lambda number: _done(out, number), write, sizes=sizes, job=job, what="generating")
    except Exhausted as error:
        exhausted += torch.tensor([error.index + 1, error.attempts], device=job.device)
    index, attempts = max(job.gather(exhausted[None]).tolist())
    if index >= 0:
        name = classes[labels[index]]
        raise UserError(
            f"sample {index} of class {name!r}: all {attempts:,} attempts were rejected; "
            "lower keep_score or agree_min, or raise tries"
        )


def _shard(sampler: RejectionSampler, number: int, drawn: np.ndarray) -> Iterator[Sample]:
    """The samples of a shard; adds to `drawn` (classes,) how many images were drawn for each class."""
    for index, attempt, image in sampler.samples(shard_samples(number, len(sampler.labels))):
        label = int(sampler.labels[index])
        drawn[label] += attempt + 1
        yield Sample(sample_key(index), encode_png(image), label=label)


def _done(out: Path, number: int) -> bool:
    return shard_done(out, number) and _drawn_path(out, number).is_file()


def _drawn_path(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:06d}.drawn.npy"


def _write_drawn(out: Path, number: int, drawn: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, drawn)
    write_atomically(_drawn_path(out, number), buffer.getvalue())


def finish(out: Path, network: dict[str, Any]) -> None:
    """Finishes the pool once all parts have written their shards; two parts may end at the same time."""
    pool = read_json(out / POOL_FILE)
    total = len(shard_sizes(pool["count"]))
    if not (out / shard_name(0)).is_file():
        return
    with exclusive(out / shard_name(0)):
        if (out / "index.json").is_file() or not all(_done(out, number) for number in range(total)):
            return
        if pool.get("filter"):
            write_json(out / POOL_FILE, pool | _kept(out, total, pool["counts"]))
        finish_pool(out, total, network["class_names"], (network["channels"], network["size"], network["size"]))


def _kept(out: Path, total: int, counts: dict[str, int]) -> dict[str, Any]:
    """How many images were drawn for the pool, by class, and the share of them that was kept."""
    drawn = dict(zip(counts, sum(np.load(_drawn_path(out, number)) for number in range(total)).tolist(), strict=True))
    return {
        "drawn": drawn,
        "kept_rate": {name: round(count / drawn[name], 6) for name, count in counts.items() if drawn[name]},
    }
