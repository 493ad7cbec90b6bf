"""Writes a refined pool: ``accelerate launch -m simgan.refine run=RUN synthetic=SYN/train out=POOL``.

Shards, keys, labels and annotations are those of the synthetic shards; only the images change. Running the command
again resumes it. The pool is the same, byte for byte, whatever the number of processes.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.cli.config import MISSING, CommandKeys, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_json
from cluster_jobs.core.output_directory import OutputDirectory
from cluster_jobs.data import pool
from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, shard_done, write_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from simgan.networks.refiner import Refiner
from simgan.networks.trained_refiner import BLOCK, check_images, load_refiner, refine_images

MOVABLE = ("run", "synthetic")  # fields of pool.json: a directory that has moved is still the same one


@dataclass
class RefineConfig(CommandKeys):
    """Refines labelled synthetic shards into a pool, with pool.json saying what made it."""

    run: str = option(MISSING, "run directory of simgan.train", path=True)
    synthetic: str = option(MISSING, "shards of simulated images", path=True)
    out: str = option(MISSING, "pool to write: a shard directory", path=True)
    checkpoint: str = option("last", "last, best, or the path of a checkpoint", path=True)


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
    output = OutputDirectory(out, finished=(out / "index.json").is_file)
    described = describe(config, synthetic, info)
    with output.locked(job.on_main):
        job.on_main(lambda: begin(output, described))
        if output.is_finished():
            job.say(f"{out} is finished: {len(synthetic):,} images")
        else:
            write_shards(out, refiner, synthetic, job)
            job.barrier()
            shards = len(synthetic.shard_names)
            job.on_main(lambda: pool.finish_pool(out, shards, synthetic.classes, synthetic.shape))


def begin(output: OutputDirectory, described: dict[str, Any]) -> None:
    """Writes pool.json; raises UserError if the directory holds something else."""
    if not output.check(pool.POOL_FILE, described, free=MOVABLE):
        write_json(output.path / pool.POOL_FILE, described)
    output.remove_leftovers()


def describe(config: RefineConfig, synthetic: Shards, info: dict[str, Any]) -> dict[str, Any]:
    """pool.json: everything that decides the pool's bytes, and where it came from.

    A simulator's labels are known: they are read from the shards' ``.cls`` and kept. If the input is another pool,
    ``synthetic_pool`` says what made that.
    """
    labels = synthetic.hidden_labels()
    counts = np.bincount(labels[labels >= 0], minlength=len(synthetic.classes))
    return {
        "made_by": "simgan.refine",
        "run": config.run,
        "checkpoint": {"nimg": info["nimg"], "weights_sha256": info["weights"]},
        "network": info["network"],
        "synthetic": config.synthetic,
        "synthetic_fingerprint": synthetic.fingerprint,
        "synthetic_pool": pool.read_pool(synthetic),
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


def write_shards(out: Path, refiner: Refiner, synthetic: Shards, job: Job) -> None:
    """Writes this rank's share of the missing shards. A killed run loses at most the shard that it was writing."""
    ends, labels = np.cumsum(synthetic.shard_counts), synthetic.hidden_labels()

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

    pool.write_missing(
        range(len(ends)),
        lambda number: shard_done(out, number),
        lambda number: write_shard(out, number, samples(number)),
        sizes=synthetic.shard_counts.tolist(),
        job=job,
        what="refining",
    )


if __name__ == "__main__":
    sys.exit(main())
