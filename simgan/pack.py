"""Writes labelled synthetic shards: ``python -m simgan.pack source=printed_digits count=20000 seed=0 out=DIR``.

A refiner is trained on DIR/train and refines it. DIR/test holds other images, on which ``simgan.evaluate`` checks that
labels survive refining. ``SOURCES`` is the table of what can be packed.
"""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster_jobs.cli.config import MISSING, command, option, to_dict
from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import Size
from cluster_jobs.data.shard_writer import SHARD_SAMPLES
from cluster_jobs.data.shards import Shards
from cluster_jobs.packing.engine import pack, print_table
from cluster_jobs.packing.makers import Repack
from cluster_jobs.packing.sources import Source, hold_out
from simgan.readers.mpiigaze import mpiigaze
from simgan.readers.nyu import nyu
from simgan.readers.unityeyes import UnityEyes
from simgan.simulators.eyes import Eyes
from simgan.simulators.hands import DepthHands
from simgan.simulators.printed_digits import PrintedDigits


@dataclass(frozen=True)
class PackSource:
    """One row of the table: a description, the keys that the source uses, with defaults, and how splits are made."""

    help: str
    keys: dict[str, Any]  # a key that is not here is refused when the user sets it
    build: Callable[["SyntheticPackConfig"], dict[str, Source]]  # from a configuration with these keys filled in


def split_counts(config: "SyntheticPackConfig") -> dict[str, int]:
    """The number of images that a simulator draws for each split; empty splits are left out."""
    assert config.count is not None and config.test is not None
    counts = {"train": config.count, "test": round(config.count * config.test)}
    return {split: count for split, count in counts.items() if count}


def _printed_digits(config: "SyntheticPackConfig") -> dict[str, Source]:
    assert config.size is not None and config.seed is not None
    return {
        split: PrintedDigits(count, config.size, config.seed, split) for split, count in split_counts(config).items()
    }


def _eyes(config: "SyntheticPackConfig") -> dict[str, Source]:
    assert config.height is not None and config.width is not None
    assert config.seed is not None and config.domain is not None
    shape, domain = (config.height, config.width), config.domain.name
    return {split: Eyes(count, *shape, config.seed, split, domain) for split, count in split_counts(config).items()}


def _hands(config: "SyntheticPackConfig") -> dict[str, Source]:
    assert config.size is not None and config.seed is not None and config.domain is not None
    shape, domain = config.size, config.domain.name
    return {
        split: DepthHands(count, shape, config.seed, split, domain) for split, count in split_counts(config).items()
    }


def _nyu(config: "SyntheticPackConfig") -> dict[str, Source]:
    assert config.path is not None and config.size is not None and config.domain is not None
    return nyu(Path(config.path), config.domain.name, config.size)


def _unityeyes(config: "SyntheticPackConfig") -> dict[str, Source]:
    assert config.path is not None and config.test is not None and config.seed is not None
    assert config.height is not None and config.width is not None
    eyes = UnityEyes(Path(config.path), config.height, config.width)
    return hold_out(eyes, config.test, config.seed) if config.test else {"train": eyes}


def _mpiigaze(config: "SyntheticPackConfig") -> dict[str, Source]:
    assert config.path is not None and config.test_persons is not None
    assert config.height is not None and config.width is not None
    return mpiigaze(Path(config.path), config.test_persons, config.height, config.width)


class Domain(Enum):
    """The values of the key ``domain``."""

    simulator = "simulator"
    camera = "camera"


DRAWN = {"count": 20_000, "test": 0.1}  # keys of every simulator, besides the seed
READ = {"path": None, "allow_bad": 0}  # keys of every reader

SOURCES = {
    "printed_digits": PackSource(
        "0 to 9 in the fonts that matplotlib ships, white on black", {**DRAWN, "size": 32, "seed": 0}, _printed_digits
    ),
    "eyes": PackSource(
        "grey eyes annotated with gaze, head, pupil and iris outline; domain=camera draws the stand-in for photographs",
        {**DRAWN, "domain": Domain.simulator, "height": 35, "width": 55, "seed": 0},
        _eyes,
    ),
    "hands": PackSource(
        "depth pictures of hands annotated with 14 joints; domain=camera draws the stand-in for a Kinect's",
        {**DRAWN, "domain": Domain.simulator, "size": 224, "seed": 0},
        _hands,
    ),
    "nyu": PackSource(
        "train and test of the NYU hand pose data; domain=simulator: synthdepth, domain=camera: depth",
        {**READ, "domain": Domain.simulator, "size": 224},
        _nyu,
    ),
    "unityeyes": PackSource(
        "N.jpg and N.json of UnityEyes, cropped; a share of them is held out",
        {**READ, "test": 0.1, "height": 35, "width": 55, "seed": 0},
        _unityeyes,
    ),
    "mpiigaze": PackSource(
        "Data/Normalized/pXX/dayYY.mat of MPIIGaze; right eyes mirrored, whole persons held out",
        {**READ, "test_persons": "p14", "height": 35, "width": 55},
        _mpiigaze,
    ),
}

SourceName = Enum("SourceName", {name: name for name in SOURCES})  # type: ignore[misc]  # the values of the key


@dataclass
class SyntheticPackConfig:
    """Writes labelled images into shards, DIR/train and DIR/test. Running the command again resumes it."""

    source: SourceName = option(SourceName["printed_digits"], "what to pack, see the list of sources")
    path: str | None = option(None, "directory of the original files", path=True)
    domain: Domain | None = option(None, "simulator: clean labelled images; camera: the real ones or their stand-in")
    count: int | None = option(None, "images to draw for DIR/train")
    test: float | None = option(
        None, "images to draw besides for DIR/test, as a share of count; none of them is in train"
    )
    test_persons: str | None = option(None, "persons whose eyes make DIR/test and are not in train: p13 p14", path=True)
    size: int | None = option(None, "side of square images")
    height: int | None = option(None, "height of the images in pixels")
    width: int | None = option(None, "width of the images in pixels")
    seed: int | None = option(None, "seed of the simulator; image i of a split is a function of (seed, split, i)")
    allow_bad: int | None = option(None, "how many samples that cannot be read may be left out; one more is fatal")
    out: str = option(MISSING, "directory to write", path=True)
    shard_samples: int = option(SHARD_SAMPLES, "samples a shard")
    workers: int = option(-1, "processes; 0 works in this one, -1 chooses")
    validate: bool = option(False, "check and print the configuration, then exit")


def _describe(name: str, source: PackSource) -> str:
    return f"  source={name}: {source.help}\n      " + ", ".join(
        f"{key}=…" if value is None else f"{key}={to_dict(value)}" for key, value in source.keys.items()
    )


SyntheticPackConfig.__doc__ = "\n".join(
    [
        *(str(SyntheticPackConfig.__doc__), "", "sources, each with the keys it takes and their defaults:"),
        *(_describe(name, source) for name, source in SOURCES.items()),
    ]
)

LIMITS: dict[str, tuple[float, float]] = {
    "count": (1, 10**9),
    "test": (0.0, 1.0),
    "size": (8, 1024),
    "height": (8, 1024),
    "width": (8, 1024),
    "allow_bad": (0, 10**9),
    "shard_samples": (1, 10**6),
    "workers": (-1, 1024),
}


@command(SyntheticPackConfig, single_process=True)
def main(config: SyntheticPackConfig) -> None:
    source = SOURCES[config.source.name]
    config = _filled(config, source)
    _check(config)
    if config.validate:
        return
    out, console = Path(config.out), Console(highlight=False)
    makers = {
        split: Repack(part, out / split, _size(config), config.shard_samples)
        for split, part in source.build(config).items()
    }
    names = ("source", *(name for name in source.keys if name != "allow_bad"), "shard_samples")
    frozen = {name: to_dict(getattr(config, name)) for name in names}  # what decides the bytes of the shards
    pack(dict(makers), out, frozen, allow_bad=config.allow_bad or 0, workers=config.workers, console=console)
    print_table(console, {split: Shards(maker.directory) for split, maker in makers.items()})


def _filled(config: SyntheticPackConfig, source: PackSource) -> SyntheticPackConfig:
    """The configuration with the source's defaults; raises UserError for a key that the source does not use."""
    optional = [field.name for field in dataclasses.fields(config) if field.default is None]
    for name in optional:
        value = to_dict(getattr(config, name))
        if value is not None and name not in source.keys:
            raise UserError(
                f"{name}={value}: source={config.source.name} has no use for it; its keys are {', '.join(source.keys)}"
            )
    unset = {name: default for name, default in source.keys.items() if getattr(config, name) is None}
    config = dataclasses.replace(config, **unset)
    if "path" in source.keys and not config.path:
        raise UserError(f"missing path=…: the directory of the files of source={config.source.name}")
    return config


def _size(config: SyntheticPackConfig) -> Size:
    if config.size is not None:
        return config.size
    assert config.height is not None and config.width is not None
    return config.height, config.width


def _check(config: SyntheticPackConfig) -> None:
    for name, (low, high) in LIMITS.items():
        value = getattr(config, name)
        if value is not None and not low <= value <= high:
            raise UserError(f"{name}={value}: expected {low} to {high}")


if __name__ == "__main__":
    sys.exit(main())
