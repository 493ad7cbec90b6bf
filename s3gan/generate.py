"""Writes a labelled pool, shards like any others: ``accelerate launch -m s3gan.generate run=RUN out=POOL count=50000``.

Running the command again resumes it, or finds the pool finished; another configuration for the same pool is refused.
The pool is the same, byte for byte, whatever the number of processes.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster_jobs.cli.config import MISSING, CommandKeys, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from cluster_jobs.core.output_directory import OutputDirectory
from cluster_jobs.core.versions import DISTRIBUTION, installed
from cluster_jobs.data.pool import POOL_FILE
from cluster_jobs.distributed.job import Job
from cluster_jobs.training.frozen_config import read_frozen
from s3gan.inference.loading import load_generator
from s3gan.inference.network_file import read_network
from s3gan.inference.sampling import Balance, block_size, class_weights, label_table, order_labels, plan_labels
from s3gan.pools import directory
from s3gan.pools.class_counts import read_counts
from s3gan.pools.filters import (
    FilterKeys,
    Filters,
    calibrated,
    open_filters,
    read_thresholds,
    refuse_what_keeps_too_little,
)
from s3gan.pools.rejection import Maker, RejectionSampler, calibrate
from s3gan.pools.report import write_report


@dataclass
class PoolKeys(CommandKeys):
    """The keys of a pool before any filter."""

    run: str = option(MISSING, "run directory of s3gan.train", path=True)
    out: str = option(MISSING, "pool to write: a shard directory", path=True)
    count: int = option(50_000, "images in all")
    per_class: int = option(0, "images of each class; above 0 it replaces count")
    counts: str = option("", "CSV of class,count lines; replaces count, other classes get no image", path=True)
    balance: Balance = option(Balance.uniform, "classes equally often, or as often as in the run's label table")
    truncation: float = option(
        0.0, "cut the noise off at this absolute value: truer, less varied images; 0 cuts nothing off"
    )
    checkpoint: str = option("last", "last, best, or the path of a checkpoint", path=True)
    part: int = option(0, "this command's number among the `parts` that make one pool, from 0")
    parts: int = option(
        1, "commands (jobs of an array, say) that share out the pool's shards; the last one finishes it"
    )

    def check(self) -> None:
        super().check()
        if self.count < 1 or self.per_class < 0:
            raise UserError(f"count={self.count} per_class={self.per_class}: expected a positive number of images")
        if self.counts and self.per_class:
            raise UserError(f"counts={self.counts!r} per_class={self.per_class}: expected one of the two")
        if self.truncation < 0:
            raise UserError(f"truncation={self.truncation}: expected 0 (none) or a positive number")
        if not 0 <= self.part < self.parts:
            raise UserError(f"part={self.part} parts={self.parts}: expected 0 <= part < parts")


@dataclass
class GenerateConfig(FilterKeys, PoolKeys):
    """Writes a labelled pool of generated images, with pool.json saying what made it."""


@command(GenerateConfig)
def main(config: GenerateConfig) -> None:
    if config.validate:
        return
    job, out = Job.open(config), Path(config.out)
    generator, info = load_generator(config.run, config.checkpoint, job.device)
    network = read_network(Path(config.run), info["path"])
    labels, names = plan(config, network), network["class_names"]
    filters = open_filters(config, config.run, info["path"], network, job.device)
    planned = describe(config, network, info, labels, filters)
    block = block_size(network["size"])
    maker = Maker(generator, filters.criteria, config.seed, config.truncation, block, job.device)
    output = OutputDirectory(out, finished=(out / "index.json").is_file)
    with output.locked(job.on_main, f"part-{config.part}-of-{config.parts}" if config.parts > 1 else ""):
        job.on_main(lambda: begin_directory(output, planned, shared=config.parts > 1))
        if not on_all(job, (out / POOL_FILE).is_file()):
            begin(out, planned, maker, config, job)
        job.barrier()
        thresholds = read_thresholds(read_json(out / POOL_FILE), filters.criteria, names, out / POOL_FILE)
        sampler = RejectionSampler(maker, thresholds, labels, filters.limit)
        if on_all(job, output.is_finished()):
            job.say(f"{out} is finished: {len(labels):,} images")
        else:
            directory.write_shards(out, sampler, names, config.part, config.parts, job)
            job.barrier()
            job.on_main(lambda: directory.finish(out, network))
            job.on_main(output.remove_part_locks)
        if not output.is_finished():
            job.say(f"part {config.part} of {config.parts} is done, the others are still at work")
        elif output.holds_lock:  # on the main rank
            write_report(out, read_json(out / POOL_FILE), sampler)
        job.barrier()


def on_all(job: Job, value: bool) -> bool:
    """What the main rank sees, on every rank: another command may change it at any moment."""
    return bool(job.reduce(torch.tensor(int(value and job.is_main), device=job.device)))


def plan(config: GenerateConfig, network: dict[str, Any]) -> np.ndarray:
    """The class of each sample, int32 (count,)."""
    if config.counts:
        return order_labels(read_counts(Path(config.counts), network["class_names"]), config.seed)
    if config.per_class:
        trained = np.asarray(network["class_counts"]) > 0  # of other classes no training had a fake
        return order_labels(np.where(trained, config.per_class, 0), config.seed)
    return plan_labels(config.count, class_weights(network, config.balance), config.seed)


def describe(
    config: GenerateConfig, network: dict[str, Any], info: dict[str, Any], labels: np.ndarray, filters: Filters
) -> dict[str, Any]:
    """pool.json: everything that decides the pool's bytes, and where it came from."""
    counts = np.bincount(labels, minlength=network["classes"])
    frozen = read_frozen(Path(config.run)) or {}
    return {
        "made_by": "s3gan.generate",
        "versions": {name: installed(name) for name in (DISTRIBUTION, "torch")},
        "run": config.run,
        "checkpoint": {name: info[name] for name in ("file", "sha256", "nimg")},
        "label_table": label_table(network),
        "init_from": frozen.get("init_from") or None,
        "data_fingerprint": network["data_fingerprint"],
        "truncation": config.truncation,
        "filter": filters.request,
        "balance": "counts" if config.counts else "per_class" if config.per_class else config.balance.name,
        "seed": config.seed,
        "block": block_size(network["size"]),
        "count": len(labels),
        "counts": dict(zip(network["class_names"], counts.tolist(), strict=True)),
    }


def begin_directory(output: OutputDirectory, planned: dict[str, Any], shared: bool) -> None:
    """Refuses a directory of something else; removes what killed commands left where no other one is at work."""
    output.check(POOL_FILE, planned, free=directory.FREE)
    if not shared:
        output.remove_leftovers()


def begin(out: Path, planned: dict[str, Any], maker: Maker, config: GenerateConfig, job: Job) -> None:
    """Sets the filters' thresholds and writes pool.json. Every rank must call this."""
    if maker.criteria:
        names = list(planned["counts"])
        wanted = np.array(list(planned["counts"].values())) > 0
        calibration = calibrate(maker, wanted, config.calibration, job)
        refuse_what_keeps_too_little(calibration, wanted, config, names)
        planned = planned | {"calibrated": calibrated(calibration, list(maker.criteria), names)}
    job.on_main(lambda: directory.begin(out, planned))


if __name__ == "__main__":
    sys.exit(main())
