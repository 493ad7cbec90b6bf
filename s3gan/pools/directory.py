"""The directory of a pool in the making: pool.json, shards, its end. Several processes and commands may share it."""

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
from cluster_jobs.data.shard_writer import (
    PARTS,
    SHARD_SAMPLES,
    Sample,
    finish_index,
    shard_done,
    shard_name,
    write_shard,
)
from cluster_jobs.distributed.job import Job
from s3gan.pools.rejection import Exhausted, Sampler

# of pool.json: places, circumstances and results, in which a command that goes on with the pool may differ
FREE = {"run", "versions", "calibrated", "drawn", "kept_rate"}


def refuse_another_pool(out: Path, pool: dict[str, Any]) -> None:
    """Raises UserError where `out` holds another pool than `pool` describes, or shards that are no pool."""
    path = out / "pool.json"
    if not path.is_file():
        if out.is_dir() and any(out.glob("*.tar")):
            raise UserError(f"out={str(out)!r} holds shards that are no pool; choose an empty directory")
        return
    found = read_json(path)
    one, two = _without_place(found), _without_place(pool)
    differing = [name for name in sorted({*one, *two} - FREE) if one.get(name) != two.get(name)]
    if differing:
        what = "; ".join(f"{name}: {found.get(name)!r} -> {pool.get(name)!r}" for name in differing)
        raise UserError(f"out={str(out)!r} was generated with another configuration ({what}); choose another out")


def _without_place(pool: dict[str, Any]) -> dict[str, Any]:
    """pool.json without where the label table lies: that of a run's clusters lies in the run, which may have moved."""
    table = pool.get("label_table")
    return pool | {"label_table": table and {name: value for name, value in table.items() if name != "path"}}


def begin(out: Path, pool: dict[str, Any]) -> None:
    """Writes pool.json; of several commands that begin one pool at the same time the first decides."""
    lock = out / PARTS / "lock"
    make_parent(lock)
    lock.touch()
    with exclusive(lock):
        if not (out / "pool.json").is_file():
            write_json(out / "pool.json", pool)


def shard_total(count: int) -> int:
    return -(-count // SHARD_SAMPLES)


def write_shards(out: Path, sampler: Sampler, classes: list[str], part: int, parts: int, job: Job) -> None:
    """This rank's share of the shards that are not there yet. A killed command loses at most the shards in work.

    Raises:
        UserError: the filters keep next to nothing of a class; on all ranks.
    """
    labels = sampler.labels
    numbers = range(part, shard_total(len(labels)), parts)
    missing = [number for number in numbers if not _done(out, number)]
    job.barrier()  # every rank has looked before one adds a shard, so that all share out the same list
    images = min(len(numbers) * SHARD_SAMPLES, len(labels))
    mine = job.track(missing[job.rank :: job.world], images, "images", "generating", SHARD_SAMPLES * job.world)
    exhausted = torch.tensor([-1, 0], device=job.device)
    try:
        for number in mine:
            drawn = np.zeros(len(classes), np.int64)
            write_shard(out, number, _shard(sampler, number, drawn))
            _write_drawn(out, number, drawn)
    except Exhausted as error:
        exhausted += torch.tensor([error.index + 1, error.attempts], device=job.device)
    index, attempts = max(job.gather(exhausted[None]).tolist())
    if index >= 0:
        name = classes[labels[index]]
        raise UserError(
            f"sample {index} of class {name!r}: all {attempts:,} attempts were rejected; "
            "lower keep_score or agree_min, or raise tries"
        )


def _shard(sampler: Sampler, number: int, drawn: np.ndarray) -> Iterator[Sample]:
    """The samples of a shard; adds to `drawn` (classes,) how many images each class took."""
    first = number * SHARD_SAMPLES
    for index, attempt, image in sampler.samples(range(first, min(first + SHARD_SAMPLES, len(sampler.labels)))):
        label = int(sampler.labels[index])
        drawn[label] += attempt + 1
        yield Sample(f"{index:08d}", encode_png(image), label=label)


def _done(out: Path, number: int) -> bool:
    return shard_done(out, number) and _drawn_path(out, number).is_file()


def _drawn_path(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:06d}.drawn.npy"


def _write_drawn(out: Path, number: int, drawn: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, drawn)
    write_atomically(_drawn_path(out, number), buffer.getvalue())


def finish(out: Path, network: dict[str, Any]) -> None:
    """Ends the pool once all parts have written their shards; two parts may end at the same time."""
    pool = read_json(out / "pool.json")
    total = shard_total(pool["count"])
    if not (out / shard_name(0)).is_file():
        return
    with exclusive(out / shard_name(0)):
        if (out / "index.json").is_file() or not all(_done(out, number) for number in range(total)):
            return
        if pool.get("filter"):
            write_json(out / "pool.json", pool | _kept(out, total, pool["counts"]))
        mode = "L" if network["channels"] == 1 else "RGB"
        finish_index(out, total, classes=network["class_names"], size=network["size"], mode=mode)


def _kept(out: Path, total: int, counts: dict[str, int]) -> dict[str, Any]:
    """How many images the pool took, by class, and the share of them that it kept."""
    drawn = dict(zip(counts, sum(np.load(_drawn_path(out, number)) for number in range(total)).tolist(), strict=True))
    return {
        "drawn": drawn,
        "kept_rate": {name: round(count / drawn[name], 6) for name, count in counts.items() if drawn[name]},
    }
