"""What is evaluated: a run's generator, which draws its own samples, or a pool of shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster_jobs.errors import UserError
from cluster_jobs.files import parse_json
from cluster_jobs.job import Job
from cluster_jobs.shards import Shards
from cluster_jobs.stores import child
from s3gan.metrics.labelled import Labelled, digest, from_arrays, from_shards
from s3gan.sampling import Balance, block_size, class_weights, draw_noise, label_table, make_images, plan_labels
from s3gan.snapshot import load_generator, read_network


@dataclass(frozen=True)
class Subject:
    """Labelled images in the making; their labels are classes of their own, named by `class_names`."""

    origin: str  # the run or the pool, as the user calls it
    identity: dict[str, Any]  # equal for equal images
    size: int
    channels: int
    class_names: list[str]
    label_table: dict[str, Any]  # metadata of the table that the generator was trained with; {} where nobody knows
    draw: Callable[[], Labelled]  # a collective


def run_subject(
    run: Path, checkpoint: str, *, count: int, balance: Balance, truncation: float, seed: int, job: Job
) -> Subject:
    """The samples of a run's generator, drawn anew: `count` images, keyed like those of a pool."""
    generator, info = load_generator(run, checkpoint, job.device)
    network = read_network(run)
    labels = plan_labels(count, class_weights(network, balance), seed)

    def draw() -> Labelled:
        block = block_size(network["size"])
        step, made = block * job.world, []
        for start in job.track(range(0, count, step), count, "images", "drawing samples", step):
            first = min(start + job.rank * block, count)
            indices = range(first, min(first + block, count))
            images = np.empty((0, network["channels"], network["size"], network["size"]), np.uint8)
            if len(indices):
                noise = draw_noise(seed, indices, generator.z_dim, truncation)
                chosen = torch.from_numpy(labels[indices.start : indices.stop].astype(np.int64))
                images = make_images(generator, noise, chosen, block, job.device)
            made.append(job.gather(torch.from_numpy(images).to(job.device)).cpu().numpy())
        return from_arrays(np.concatenate(made), labels)

    identity = {
        "checkpoint": info["sha256"],
        "nimg": info["nimg"],
        "count": count,
        "balance": balance.name,
        "truncation": truncation,
        "seed": seed,
    }
    names, table = network["class_names"], label_table(network)
    return Subject(str(run), identity, network["size"], network["channels"], names, table, draw)


def pool_subject(pool: str) -> Subject:
    """All images of a pool, whatever wrote it; `pool.json` says which label table its classes come from."""
    shards = Shards(pool)
    content = shards.store.document("pool.json")
    made_by = parse_json(content, child(pool, "pool.json")) if content else {}
    labels = np.asarray(shards.hidden_labels())  # a pool's labels are its generator's conditions: nothing is hidden
    if labels.max() < 0:
        raise UserError(f"pool={pool!r}: none of its images has a label")
    names = [*shards.classes, *map(str, range(len(shards.classes), int(labels.max()) + 1))]
    identity = {"pool": shards.fingerprint, "labels": digest(labels)}
    table = made_by.get("label_table") or {}
    return Subject(pool, identity, shards.size, shards.channels, names, table, lambda: from_shards(shards, labels))
