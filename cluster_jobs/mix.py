"""Mixes the real budget, generated and refined images by stated shares into one pool: ``python -m cluster_jobs.mix``.

    python -m cluster_jobs.mix real=DIR/train labels=budget.parquet gan=POOL refined=REFINED \\
        share_real=0.2 share_gan=0.4 share_refined=0.4 count=10000 out=MIX

The same command again goes on where it stopped; another configuration for the same pool is refused. The pool is the
same, byte for byte, whatever the number of workers.
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
from cluster_jobs.core.workers import cores
from cluster_jobs.data.shard_writer import finish_index
from cluster_jobs.mixing import mixture
from cluster_jobs.mixing.report import print_table, write_report
from cluster_jobs.mixing.shares import plan, read_shares
from cluster_jobs.mixing.sources import REAL, SOURCES, Source, match, open_pool, open_real

RESULTS = ("counts", "counts_by_source", "available", "repeated", "dropped", "classes_left_out")  # of pool.json


@dataclass
class MixConfig:
    """Mixes the real budget, generated and refined images into a pool of equally many images a class."""

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
    out, console = Path(config.out), Console(highlight=False)
    classes, sources, left_out = match([open_source(config, name) for name in SOURCES if name in shares])
    described = describe(config, sources)
    refuse_another_pool(out, described)
    if (out / "index.json").is_file():
        mixture.tidy(out)
        console.print(f"{out} is finished: {config.count:,} images", soft_wrap=True, markup=False)
        print_table(console, read_json(out / "pool.json"))
        return
    total = sum(len(source.indices) for source in sources)
    workers = config.workers if config.workers >= 0 else min(cores(), total // (4 * mixture.BLOCK))
    hashes, thumbnails = mixture.signatures(sources, _identity(described)["sources"], out, workers)
    rows, dropped = mixture.without_duplicates(sources, hashes, thumbnails, config.near)
    there = mixture.counts_of(sources, rows)
    capacity = there * np.array([config.repeat if source.name == REAL else 1 for source in sources])
    wanted = plan(config.count, [shares[source.name] for source in sources], capacity, config.fill)
    mixture.check_capacity(wanted, capacity, there, sources)
    chosen = mixture.choose(sources, rows, wanted, config.seed)
    names = [source.name for source in sources]

    def table(counts: np.ndarray) -> dict[str, dict[str, int]]:
        return {label: dict(zip(names, row, strict=True)) for label, row in zip(classes, counts.tolist(), strict=True)}

    results = {
        "counts": dict(zip(classes, wanted.sum(1).tolist(), strict=True)),
        "counts_by_source": table(wanted),
        "available": table(there),
        "repeated": int(np.maximum(wanted - there, 0).sum()),  # images that are not the first of their kind
        "dropped": dropped,
        "classes_left_out": left_out,
    }
    write_json(out / "pool.json", described | results)
    mixture.write_shards(sources, chosen, out, workers)
    channels, height, width = sources[0].shards.shape
    size = height if height == width else (height, width)
    mode = "L" if channels == 1 else "RGB"
    write_report(out, described | results, sources, chosen)
    finish_index(out, mixture.shard_total(config.count), classes=classes, size=size, mode=mode)
    mixture.tidy(out)
    print_table(console, described | results)


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


def open_source(config: MixConfig, name: str) -> Source:
    return open_real(config.real, config.labels) if name == REAL else open_pool(name, getattr(config, name))


def describe(config: MixConfig, sources: list[Source]) -> dict[str, Any]:
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


def refuse_another_pool(out: Path, pool: dict[str, Any]) -> None:
    """Raises UserError where ``out`` holds another pool, or something else."""
    path = out / "pool.json"
    if not path.is_file():
        if out.exists() and (not out.is_dir() or any(not _begun(file.name) for file in out.iterdir())):
            raise UserError(f"out={str(out)!r} holds something else; choose a new or empty directory")
        return
    found, now = (_identity(content) for content in (read_json(path), pool))
    differing = [name for name in sorted({*found, *now}) if found.get(name) != now.get(name)]
    if differing:
        what = "; ".join(f"{name}: {found.get(name)!r} -> {now.get(name)!r}"[:300] for name in differing)
        raise UserError(f"out={str(out)!r} was mixed with another configuration ({what}); choose another out")


def _begun(name: str) -> bool:
    """Whether a file is one of a mixture that was killed before it wrote pool.json."""
    return name == mixture.SIGNATURES or (name.startswith(".") and name.endswith(".tmp"))


def _identity(pool: dict[str, Any]) -> dict[str, Any]:
    """pool.json without results and places: a moved source is still the same one."""
    free = {"directory", "pool", "label_table"}
    sources = {
        name: {what: value for what, value in source.items() if what not in free}
        for name, source in pool.get("sources", {}).items()
    }
    return {name: value for name, value in pool.items() if name not in RESULTS} | {"sources": sources}


if __name__ == "__main__":
    sys.exit(main())
