"""Mixes the real budget, generated and refined images by stated shares into one pool: ``python -m cluster_jobs.mix``.

    python -m cluster_jobs.mix real=DIR/train labels=budget.parquet gan=POOL refined=REFINED \\
        share_real=0.2 share_gan=0.4 share_refined=0.4 count=10000 out=MIX

Running the command again resumes it; another configuration for the same pool is refused. The pool is the same, byte for
byte, whatever the number of workers.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.core.output_directory import OutputDirectory
from cluster_jobs.core.workers import cores
from cluster_jobs.data.pool import POOL_FILE, finish_pool, shard_sizes
from cluster_jobs.mixing import mixture
from cluster_jobs.mixing.report import print_table, write_report
from cluster_jobs.mixing.shares import plan, read_shares
from cluster_jobs.mixing.sources import REAL, SOURCES, MixSource, match, open_pool, open_real

RESULTS = ("counts", "counts_by_source", "available", "repeated", "dropped", "classes_left_out")  # of pool.json
# fields of pool.json that may differ when a command resumes the pool: results, and the paths of its sources; a source
# that has moved is still the same one
FREE = (*RESULTS, "sources.*.directory", "sources.*.pool", "sources.*.label_table")


@dataclass
class MixConfig:
    """Mixes the real budget, generated and refined images into a pool with equally many images per class."""

    out: str = option(MISSING, "pool to write: a shard directory", path=True)
    real: str = option("", "shards of the real images; only those with a revealed label enter", path=True)
    labels: str = option("", "label table of real=; its rows of origin `true` are the budget", path=True)
    gan: str = option("", "pool of s3gan.generate", path=True)
    refined: str = option("", "pool of simgan.refine", path=True)
    share_real: float = option(0.0, "share of the real images; shares sum to 1, a source without a share is not read")
    share_gan: float = option(0.0, "share of the generated images")
    share_refined: float = option(0.0, "share of the refined images")
    count: int = option(10_000, "images in all, equally many of each class")
    repeat: int = option(1, "places that a real image may take, at most; images are repeated equally often")
    fill: bool = option(False, "take what a source lacks of a class from the others, in proportion to their shares")
    near: float = option(
        1.0,
        "drop images of a class whose 8 x 8 thumbnails differ by no more grey levels (0 to 255) on average; -1: none",
    )
    seed: int = option(0, "seed of the choice of images and of their order")
    workers: int = option(-1, "processes; 0 works in this one, -1 takes one a core where there is work for them")
    validate: bool = option(False, "check and print the configuration, then exit")


@command(MixConfig, single_process=True)
def main(config: MixConfig) -> None:
    shares = check(config)
    if config.validate:
        return
    output = OutputDirectory(config.out, finished=Path(config.out, "index.json").is_file)
    console = Console(highlight=False)
    classes, sources, left_out = match([open_source(config, name) for name in SOURCES if name in shares])
    described = describe(config, sources)
    with output.locked():
        output.check(POOL_FILE, described, free=FREE)
        output.remove_leftovers()
        if output.is_finished():
            if output.holds_lock:
                mixture.tidy(output.path)
            console.print(f"{config.out} is finished: {config.count:,} images", soft_wrap=True, markup=False)
            print_table(console, read_json(output.path / POOL_FILE))
        else:
            pool = make(config, shares, classes, sources, described, left_out)
            print_table(console, pool)


def make(
    config: MixConfig,
    shares: dict[str, Any],
    classes: list[str],
    sources: list[MixSource],
    described: dict[str, Any],
    left_out: dict[str, list[str]],
) -> dict[str, Any]:
    """Makes the mixture, or what is missing of it. Returns pool.json.

    Args:
        described: what decides the pool's bytes; results join it in pool.json.
        left_out: by source the names of its classes that no image of the pool has.
    """
    out = Path(config.out)
    total = sum(len(source.indices) for source in sources)
    workers = config.workers if config.workers >= 0 else min(cores(), total // (4 * mixture.BLOCK))
    hashes, thumbnails = mixture.signatures(sources, out, workers)
    rows, dropped = mixture.without_duplicates(sources, hashes, thumbnails, config.near)
    available = mixture.counts_of(sources, rows)
    capacity = available * np.array([config.repeat if source.name == REAL else 1 for source in sources])
    wanted = plan(config.count, [shares[source.name] for source in sources], capacity, config.fill)
    mixture.check_capacity(wanted, capacity, available, sources)
    chosen = mixture.choose(sources, rows, wanted, config.seed)
    names = [source.name for source in sources]

    def table(counts: np.ndarray) -> dict[str, dict[str, int]]:
        return {label: dict(zip(names, row, strict=True)) for label, row in zip(classes, counts.tolist(), strict=True)}

    pool = described | {
        "counts": dict(zip(classes, wanted.sum(1).tolist(), strict=True)),
        "counts_by_source": table(wanted),
        "available": table(available),
        "repeated": int(np.maximum(wanted - available, 0).sum()),  # images that are not the first of their kind
        "dropped": dropped,
        "classes_left_out": left_out,
    }
    write_json(out / POOL_FILE, pool)
    mixture.write_shards(sources, chosen, out, workers)
    write_report(out, pool, sources, chosen)
    finish_pool(out, len(shard_sizes(config.count)), classes, sources[0].shards.shape)
    mixture.tidy(out)
    return pool


def check(config: MixConfig) -> dict[str, Any]:
    """The shares of the sources that enter. Raises UserError for what can be known before any input exists."""
    shares = read_shares({name: getattr(config, f"share_{name}") for name in SOURCES})
    for name, least in (("count", 1), ("repeat", 1), ("workers", -1), ("near", -1)):
        if not least <= getattr(config, name) < math.inf:
            raise UserError(f"{name}={getattr(config, name)}: expected a number of at least {least}")
    for name in shares:
        if not getattr(config, name):
            raise UserError(f"share_{name}={getattr(config, f'share_{name}'):g} needs {name}=…")
    if REAL in shares and not config.labels:
        raise UserError("real= needs labels=…, the label table of the budget: only images of revealed labels enter")
    return shares


def open_source(config: MixConfig, name: str) -> MixSource:
    return open_real(config.real, config.labels) if name == REAL else open_pool(name, getattr(config, name))


def describe(config: MixConfig, sources: list[MixSource]) -> dict[str, Any]:
    """What decides the pool's bytes, and where it came from."""
    return {
        "made_by": "cluster_jobs.mix",
        "sources": {source.name: {"directory": source.directory, **source.provenance} for source in sources},
        "shares": {source.name: getattr(config, f"share_{source.name}") for source in sources},
        "label_table": None,  # classes are those of the sources, by name
        "repeat": config.repeat,
        "fill": config.fill,
        "near": config.near,
        "seed": config.seed,
        "count": config.count,
    }


if __name__ == "__main__":
    sys.exit(main())
