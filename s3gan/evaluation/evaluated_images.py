"""What is evaluated: a run's generator, which draws its own samples, or a pool of shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from cluster_jobs.data.pool import read_labels, read_pool
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from cluster_jobs.training.checkpoint import CheckpointStore
from s3gan.inference.loading import load_generator
from s3gan.inference.network_file import read_network
from s3gan.inference.sampling import (
    Balance,
    block_size,
    class_weights,
    draw_noise,
    label_table,
    make_images,
    plan_labels,
)
from s3gan.metrics.labelled import Labelled, digest, from_arrays, from_shards


@dataclass(frozen=True)
class Draw:
    """Images that `make` draws or reads: of one checkpoint and one sample seed, or of a pool."""

    identity: dict[str, Any]  # equal for equal images
    label_table: dict[str, Any]  # metadata of the table that the generator was trained with; {} where nobody knows
    make: Callable[[], Labelled]  # every rank must call it; labels are numbers in `EvaluatedImages.class_names`


@dataclass(frozen=True)
class EvaluatedImages:
    """Labelled images of classes of their own, named by `class_names`."""

    origin: str  # the run or the pool, as the user calls it
    size: int
    channels: int
    class_names: list[str]
    draws: list[Draw]  # the newest checkpoint's first, each with the first sample seed first


def images_of_run(
    run: Path,
    checkpoint: str,
    *,
    count: int,
    balance: Balance,
    truncation: float,
    seed: int,
    sample_seeds: int = 1,
    checkpoints: int = 1,
    job: Job,
) -> EvaluatedImages:
    """New samples of a run's generator: `count` images per draw, keyed like those of a pool.

    Draws are those of the newest `checkpoints` (up to the one named), with the sample seeds from `seed` on. In a run
    that re-clusters each checkpoint has the clusters that it was trained with.

    Raises:
        UserError: the run has fewer checkpoints, or the clusters of one are gone.
    """
    network = read_network(run)

    @lru_cache(maxsize=1)  # one generator in memory; the draws of a checkpoint follow one another
    def load(chosen: str) -> tuple[Any, dict[str, Any]]:
        return load_generator(run, chosen, job.device)

    def draw_of(chosen: str, info: dict[str, Any], sample_seed: int) -> Draw:
        trained = read_network(run, info["path"])
        labels = plan_labels(count, class_weights(trained, balance), sample_seed)
        identity = {
            "checkpoint": info["sha256"],
            "nimg": info["nimg"],
            "count": count,
            "balance": balance.name,
            "truncation": truncation,
            "seed": sample_seed,
        }

        def make() -> Labelled:
            return draw_samples(load(chosen)[0], network, labels, truncation, sample_seed, job)

        return Draw(identity, label_table(trained), make)

    newest = load(checkpoint)[1]
    known = [(checkpoint, newest), *_earlier(run, newest["nimg"])][:checkpoints]
    if len(known) < checkpoints:
        raise UserError(
            f"checkpoints={checkpoints}: {str(run)!r} holds {len(known)} up to {newest['nimg']:,} images "
            "(keep_last of s3gan.train says how many stay)"
        )
    draws = [draw_of(chosen, info, seed + offset) for chosen, info in known for offset in range(sample_seeds)]
    return EvaluatedImages(str(run), network["size"], network["channels"], network["class_names"], draws)


def draw_samples(
    generator: Any, network: dict[str, Any], labels: np.ndarray, truncation: float, seed: int, job: Job
) -> Labelled:
    """A sample of each of the labels (count,), on every rank. Every rank must call this."""
    size, channels, count = network["size"], network["channels"], len(labels)
    block = block_size(size)
    step, made = block * job.world, []
    for start in job.track(range(0, count, step), count, "images", "drawing samples", step):
        first = min(start + job.rank * block, count)
        indices = range(first, min(first + block, count))
        images = np.empty((0, channels, size, size), np.uint8)
        if len(indices):
            noise = draw_noise(seed, indices, generator.z_dim, truncation)
            chosen = torch.from_numpy(labels[indices.start : indices.stop].astype(np.int64))
            images = make_images(generator, noise, chosen, block, job.device)
        made.append(job.gather(torch.from_numpy(images).to(job.device)).cpu().numpy())
    return from_arrays(np.concatenate(made), labels)


def _earlier(run: Path, nimg: int) -> list[tuple[str, dict[str, Any]]]:
    """The checkpoints before `nimg`, newest first: each path, and its description as `load_generator` gives it."""
    paths = [path for path in CheckpointStore(run / "checkpoints").paths() if int(path.stem) < nimg]
    return [
        (
            str(path),
            {
                "path": str(path),
                "sha256": read_json(path.with_suffix(".json"))["sha256"],
                "nimg": int(path.stem),
            },
        )
        for path in reversed(paths)
    ]


def images_of_pool(pool: str) -> EvaluatedImages:
    """All images of a pool, whatever wrote it; `pool.json` says which label table its classes come from."""
    shards = Shards(pool)
    made_by = read_pool(shards) or {}
    labels, names = read_labels(shards)
    if labels.max() < 0:
        raise UserError(f"pool={pool!r}: none of its images has a label")
    identity = {"pool": shards.fingerprint, "labels": digest(labels)}
    table = made_by.get("label_table") or {}
    draw = Draw(identity, table, lambda: from_shards(shards, labels))
    return EvaluatedImages(pool, shards.size, shards.channels, names, [draw])
