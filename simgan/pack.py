"""Draws labelled synthetic shards: ``python -m simgan.pack source=printed_digits count=20000 seed=0 out=DIR``.

DIR/train is what a refiner is trained on and what it refines; DIR/test, drawn besides, is what it never saw, and
``simgan.evaluate`` checks there that labels survive.
"""

import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from rich.console import Console

from cluster_jobs.config import MISSING, command, key
from cluster_jobs.errors import UserError
from cluster_jobs.packing import pack, print_table
from cluster_jobs.shard_makers import Repack
from cluster_jobs.shard_writer import SHARD_SAMPLES
from cluster_jobs.shards import Shards
from simgan.simulators.printed_digits import PrintedDigits


class SourceName(Enum):
    printed_digits = "printed_digits"


@dataclass
class PackConfig:
    """Draws simulated, labelled images into shards, DIR/train and DIR/test. The same command again continues."""

    source: SourceName = key(SourceName.printed_digits, "printed_digits: 0 to 9 in the fonts that matplotlib ships")
    count: int = key(20_000, "images to draw for DIR/train")
    test: float = key(0.1, "images to draw besides for DIR/test, as a share of count; none of them is in train")
    size: int = key(32, "side of the square pictures")
    seed: int = key(0, "seed of the simulator; image i of a split is a function of (seed, split, i)")
    out: str = key(MISSING, "directory to write", path=True)
    shard_samples: int = key(SHARD_SAMPLES, "samples a shard")
    workers: int = key(-1, "processes; 0 works in this one, -1 chooses")
    validate: bool = key(False, "check and print the configuration, then exit")


@command(PackConfig)
def main(config: PackConfig) -> None:
    _check(config)
    if config.validate:
        return
    out, console = Path(config.out), Console(highlight=False)
    counts = {"train": config.count, "test": round(config.count * config.test)}
    makers = {
        split: Repack(
            PrintedDigits(count, config.size, config.seed, split), out / split, config.size, config.shard_samples
        )
        for split, count in counts.items()
        if count
    }
    frozen = {name: getattr(config, name) for name in ("count", "test", "size", "seed", "shard_samples")}
    pack(
        dict(makers),
        out,
        {"source": config.source.name, **frozen},
        allow_bad=0,
        workers=config.workers,
        console=console,
    )
    print_table(console, {split: Shards(maker.directory) for split, maker in makers.items()})


def _check(config: PackConfig) -> None:
    limits = {
        "count": (1, 10**9),
        "test": (0.0, 1.0),
        "size": (8, 1024),
        "shard_samples": (1, 10**6),
        "workers": (-1, 1024),
    }
    for name, (low, high) in limits.items():
        if not low <= getattr(config, name) <= high:
            raise UserError(f"{name}={getattr(config, name)}: expected {low} to {high}")


if __name__ == "__main__":
    sys.exit(main())
