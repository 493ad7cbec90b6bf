"""Writes a labelled pool, shards like any others: ``accelerate launch -m s3gan.generate run=RUN out=POOL count=50000``.

The same command again goes on where it stopped, or finds the pool finished; another configuration for the same pool is
refused. The pool is the same, byte for byte, whatever the number of processes.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cluster_jobs.config import MISSING, CommandKeys, command, key
from cluster_jobs.errors import UserError
from cluster_jobs.files import exclusive, read_json, write_json
from cluster_jobs.images import encode_png, save_grid
from cluster_jobs.job import Job
from cluster_jobs.sections import write_section
from cluster_jobs.shard_writer import SHARD_SAMPLES, Sample, finish_index, shard_done, write_shard
from cluster_jobs.shards import Shards
from s3gan.sampling import Balance, block_size, class_weights, draw_noise, label_table, make_images, plan_labels
from s3gan.snapshot import load_generator, read_network

GRID_CLASSES, GRID_COLUMNS = 20, 10


@dataclass
class GenerateConfig(CommandKeys):
    """Writes a labelled pool of generated images, with pool.json saying what made it."""

    run: str = key(MISSING, "run directory of s3gan.train", path=True)
    out: str = key(MISSING, "pool to write: a shard directory", path=True)
    count: int = key(50_000, "images in all")
    per_class: int = key(0, "images of each class; above 0 it replaces count")
    balance: Balance = key(Balance.uniform, "classes equally often, or as often as in the run's label table")
    truncation: float = key(
        0.0, "cut the noise off at this absolute value: truer, less varied images; 0 cuts nothing off"
    )
    checkpoint: str = key("last", "last, best, or the path of a checkpoint", path=True)
    part: int = key(0, "this command's number among the `parts` that make one pool, from 0")
    parts: int = key(1, "commands (jobs of an array, say) that share out the pool's shards; the last one finishes it")


@command(GenerateConfig)
def main(config: GenerateConfig) -> None:
    check(config)
    if config.validate:
        return
    job, out = Job.open(config), Path(config.out)
    generator, info = load_generator(config.run, config.checkpoint, job.device)
    network = read_network(Path(config.run), info["nimg"])
    weights = class_weights(network, config.balance)
    count = config.per_class * network["classes"] if config.per_class else config.count
    labels = plan_labels(count, np.full_like(weights, 1 / len(weights)) if config.per_class else weights, config.seed)
    pool = describe(config, network, info, labels)
    refuse_another_pool(out, pool)
    job.barrier()  # every rank has compared before one writes
    if (out / "index.json").is_file():
        job.say(f"{out} is finished: {count:,} images")
    else:
        if job.is_main and not (out / "pool.json").is_file():  # once: parts lock it, and a new file is another lock
            write_json(out / "pool.json", pool)
        job.barrier()
        write_shards(out, generator, labels, config, network, job)
        job.barrier()
        if job.is_main:
            finish(out, count, network)
        job.barrier()
    if not (out / "index.json").is_file():
        job.say(f"part {config.part} of {config.parts} is done, the others are still at work")
    elif job.is_main:
        write_report(out, pool)
    job.barrier()


def check(config: GenerateConfig) -> None:
    """Raises UserError for a number outside its range."""
    if config.count < 1 or config.per_class < 0:
        raise UserError(f"count={config.count} per_class={config.per_class}: expected a positive number of images")
    if config.truncation < 0:
        raise UserError(f"truncation={config.truncation}: expected 0 (none) or a positive number")
    if not 0 <= config.part < config.parts:
        raise UserError(f"part={config.part} parts={config.parts}: expected 0 <= part < parts")


def describe(
    config: GenerateConfig, network: dict[str, Any], info: dict[str, Any], labels: np.ndarray
) -> dict[str, Any]:
    """pool.json: everything that decides the pool's bytes, and where it came from."""
    counts = np.bincount(labels, minlength=network["classes"])
    return {
        "made_by": "s3gan.generate",
        "run": config.run,
        "checkpoint": {name: info[name] for name in ("file", "sha256", "nimg")},
        "label_table": label_table(network),
        "data_fingerprint": network["data_fingerprint"],
        "truncation": config.truncation,
        "balance": "per_class" if config.per_class else config.balance.name,
        "seed": config.seed,
        "block": block_size(network["size"]),
        "count": len(labels),
        "counts": dict(zip(network["class_names"], counts.tolist(), strict=True)),
    }


def refuse_another_pool(out: Path, pool: dict[str, Any]) -> None:
    """Raises UserError where `out` holds another pool, or shards that this command did not write."""
    path = out / "pool.json"
    if not path.is_file():
        if out.is_dir() and any(out.glob("*.tar")):
            raise UserError(f"out={str(out)!r} holds shards that are no pool; choose an empty directory")
        return
    found = read_json(path)
    differing = [name for name in sorted({*found, *pool} - {"run"}) if found.get(name) != pool.get(name)]
    if differing:
        what = "; ".join(f"{name}: {found.get(name)!r} -> {pool.get(name)!r}" for name in differing)
        raise UserError(f"out={str(out)!r} was generated with another configuration ({what}); choose another out")


def shard_total(count: int) -> int:
    return -(-count // SHARD_SAMPLES)


def write_shards(
    out: Path, generator: nn.Module, labels: np.ndarray, config: GenerateConfig, network: dict[str, Any], job: Job
) -> None:
    """This rank's share of the shards that are not there yet. A killed run loses at most the shard in work."""
    block, z_dim = block_size(network["size"]), network["z_dim"]
    numbers = range(config.part, shard_total(len(labels)), config.parts)
    missing = [number for number in numbers if not shard_done(out, number)]
    job.barrier()  # every rank has looked before one adds a shard, so that all share out the same list
    images = min(len(numbers) * SHARD_SAMPLES, len(labels))
    mine = job.track(missing[job.rank :: job.world], images, "images", "generating", SHARD_SAMPLES * job.world)

    def samples(number: int) -> Iterator[Sample]:
        end = min((number + 1) * SHARD_SAMPLES, len(labels))
        for start in range(number * SHARD_SAMPLES, end, block):
            indices = range(start, min(start + block, end))
            noise = draw_noise(config.seed, indices, z_dim, config.truncation)
            chosen = torch.from_numpy(labels[indices.start : indices.stop].astype(np.int64))
            images = make_images(generator, noise, chosen, block, job.device)
            for index, image in zip(indices, images, strict=True):
                yield Sample(f"{index:08d}", encode_png(image), label=int(labels[index]))

    for number in mine:
        write_shard(out, number, samples(number))


def finish(out: Path, count: int, network: dict[str, Any]) -> None:
    """Writes the index once all parts have written their shards; two parts may end at the same time."""
    with exclusive(out / "pool.json"):
        whole = all(shard_done(out, number) for number in range(shard_total(count)))
        if whole and not (out / "index.json").is_file():
            mode = "L" if network["channels"] == 1 else "RGB"
            finish_index(out, shard_total(count), classes=network["class_names"], size=network["size"], mode=mode)


def write_report(out: Path, pool: dict[str, Any]) -> None:
    """A row of samples a class, and what made the pool."""
    shards = Shards(out)
    labels = shards.hidden_labels()  # of the generator's own samples: these are the conditions
    classes = [number for number in range(len(shards.classes)) if (labels == number).any()][:GRID_CLASSES]
    rows = [np.flatnonzero(labels == number)[:GRID_COLUMNS] for number in classes]
    blank = np.full((shards.channels, shards.size, shards.size), 255, np.uint8)
    images = [
        shards.image(int(row[column])) if column < len(row) else blank for row in rows for column in range(GRID_COLUMNS)
    ]
    save_grid(out / "report" / "pool.png", np.stack(images), GRID_COLUMNS, scale=2 if shards.size < 64 else 1)
    checkpoint = pool["checkpoint"]
    write_section(
        out,
        "pool",
        title="Generated pool",
        text=f"{pool['count']:,} images by {checkpoint['file']} after {checkpoint['nimg']:,} images seen, "
        f"truncation {pool['truncation'] or 'none'}, classes {pool['balance']}.",
        columns=["class", "images"],
        rows=list(pool["counts"].items()),
        pictures=[("pool.png", "one class a row: " + ", ".join(shards.classes[number] for number in classes))],
    )


if __name__ == "__main__":
    sys.exit(main())
