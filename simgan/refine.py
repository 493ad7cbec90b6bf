"""Writes a refined pool: ``accelerate launch -m simgan.refine run=RUN synthetic=SYN/train out=POOL``.

Shards, keys, labels and annotations are those of the synthetic shards; only the images change. The same command again
goes on where it stopped. The pool is the same, byte for byte, whatever the number of processes.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.cli.config import MISSING, CommandKeys, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import parse_json, read_json, write_json
from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, finish_index, shard_done, write_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores.base import child
from cluster_jobs.distributed.job import Job
from simgan.networks.refiner import Refiner
from simgan.networks.trained_refiner import BLOCK, check_images, load_refiner, refine_images


@dataclass
class RefineConfig(CommandKeys):
    """Refines labelled synthetic shards into a pool, with pool.json saying what made it."""

    run: str = option(MISSING, "run directory of simgan.train", path=True)
    synthetic: str = option(MISSING, "shards of simulated images", path=True)
    out: str = option(MISSING, "pool to write: a shard directory", path=True)
    checkpoint: str = option("last", "last, or the path of a checkpoint", path=True)


@command(RefineConfig)
def main(config: RefineConfig) -> None:
    config.check()
    if config.validate:
        return
    job, out, synthetic = Job.open(config), Path(config.out), Shards(config.synthetic)
    refiner, info = load_refiner(config.run, config.checkpoint, job.device)
    check_images(synthetic, info["network"])
    if synthetic.fingerprint == info["network"]["real_fingerprint"]:
        raise UserError(
            f"synthetic={config.synthetic!r} holds the real images that {config.run} was trained with, whose labels "
            "may be hidden ones; expected simulated images"
        )
    pool = describe(config, synthetic, info)
    refuse_another_pool(out, pool)
    job.barrier()  # every rank has compared before one writes
    if (out / "index.json").is_file():
        job.say(f"{out} is finished: {len(synthetic):,} images")
        return
    if job.is_main:
        write_json(out / "pool.json", pool)
    job.barrier()
    write_shards(out, refiner, synthetic, job)
    job.barrier()
    if job.is_main:
        mode = "L" if synthetic.channels == 1 else "RGB"
        shards = len(synthetic.shard_names)
        finish_index(out, shards, classes=synthetic.classes, size=synthetic.shape[1:], mode=mode)
    job.barrier()


def describe(config: RefineConfig, synthetic: Shards, info: dict[str, Any]) -> dict[str, Any]:
    """pool.json: everything that decides the pool's bytes, and where it came from.

    A simulator's labels are no secret: they are read from the shards' ``.cls``, and go with the images. Where these
    are no simulator's but another pool, ``synthetic_pool`` says what made it.
    """
    labels, source = synthetic.hidden_labels(), synthetic.store.document("pool.json")
    counts = np.bincount(labels[labels >= 0], minlength=len(synthetic.classes))
    return {
        "made_by": "simgan.refine",
        "run": config.run,
        "checkpoint": {"nimg": info["nimg"], "weights_sha256": info["weights"]},
        "network": info["network"],
        "synthetic": config.synthetic,
        "synthetic_fingerprint": synthetic.fingerprint,
        "synthetic_pool": None if source is None else parse_json(source, child(config.synthetic, "pool.json")),
        "label_table": None,
        "truncation": None,
        "filter": None,
        "block": BLOCK,
        "count": len(synthetic),
        "counts": {
            synthetic.classes[number] if number < len(synthetic.classes) else str(number): int(count)
            for number, count in enumerate(counts)
        },
    }


def refuse_another_pool(out: Path, pool: dict[str, Any]) -> None:
    """Raises UserError where ``out`` holds another pool, or shards that this command did not write."""
    path = out / "pool.json"
    if not path.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise UserError(f"out={str(out)!r} holds something else; choose a new or empty directory")
        return
    found = read_json(path)
    places = {"run", "synthetic"}  # a moved directory is still the same one
    differing = [name for name in sorted({*found, *pool} - places) if found.get(name) != pool.get(name)]
    if differing:
        what = "; ".join(f"{name}: {found.get(name)!r} -> {pool.get(name)!r}" for name in differing)
        raise UserError(f"out={str(out)!r} was refined with another configuration ({what}); choose another out")


def write_shards(out: Path, refiner: Refiner, synthetic: Shards, job: Job) -> None:
    """This rank's share of the shards that are not there yet. A killed run loses at most the shard in work."""
    ends = np.cumsum(synthetic.shard_counts)
    missing = [number for number in range(len(ends)) if not shard_done(out, number)]
    job.barrier()  # every rank has looked before one adds a shard, so that all share out the same list
    labels = synthetic.hidden_labels()
    total, weight = len(synthetic) * len(missing) // len(ends), -(-len(synthetic) // len(ends)) * job.world

    def samples(number: int) -> Iterator[Sample]:
        begin, end = int(ends[number] - synthetic.shard_counts[number]), int(ends[number])
        synthetic.prefetch(np.arange(begin, end))
        for start in range(begin, end, BLOCK):
            indices = range(start, min(start + BLOCK, end))
            images = np.stack([synthetic.image(index) for index in indices])
            for index, image in zip(indices, refine_images(refiner, images, job.device), strict=True):
                label = int(labels[index]) if labels[index] >= 0 else None
                name = synthetic.key(index).partition("/")[2]
                yield Sample(name, encode_png(image), "png", label, synthetic.annotation(index))

    for number in job.track(missing[job.rank :: job.world], total, "images", "refining", weight):
        write_shard(out, number, samples(number))


if __name__ == "__main__":
    sys.exit(main())
