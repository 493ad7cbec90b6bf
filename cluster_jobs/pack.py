"""Packs images into shards: ``python -m cluster_jobs.pack source=folder path=IMAGES size=32 out=DIR``."""

import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster_jobs.cli.config import command, option, to_dict
from cluster_jobs.core.errors import UserError
from cluster_jobs.data.shard_writer import SHARD_SAMPLES
from cluster_jobs.data.shards import Shards
from cluster_jobs.packing.engine import Makers, pack, print_table
from cluster_jobs.packing.makers import Index, Repack, webdataset
from cluster_jobs.packing.sources import (
    HELD_OUT,
    digits,
    folder,
    hold_out,
    idx,
    printable,
    split_directories,
)

FROZEN = ("source", "path", "size", "mode", "classes", "test", "seed", "shard_samples")


class SourceName(Enum):
    digits = "digits"
    idx = "idx"
    folder = "folder"
    webdataset = "webdataset"


class Mode(Enum):
    auto = "auto"
    L = "L"
    RGB = "RGB"


@dataclass
class PackConfig:
    """Packs images into shards, DIR/train and DIR/test where there is a split. Running the command again resumes it."""

    source: SourceName = option(
        SourceName.digits, "digits: scikit-learn's; idx: MNIST-format; folder; webdataset: index in place"
    )
    path: str = option("", "directory of the images (idx, folder, webdataset)", path=True)
    out: str = option("", "directory to write; for webdataset the shards' own directory unless given", path=True)
    size: int = option(32, "side of the square pictures; the shorter side is resized to it, then the centre is cut out")
    mode: Mode = option(Mode.auto, "auto: grey (L) where every picture is stored as grey, else colour (RGB)")
    classes: str = option(
        "", "class names in the order of the labels, split at commas (idx, webdataset); numbers by default", path=True
    )
    test: float = option(0.0, "share of every class to hold out as DIR/test, where the source has no split of its own")
    seed: int = option(0, "seed of the draw of the held-out share")
    shard_samples: int = option(SHARD_SAMPLES, "samples a shard")
    allow_bad: int = option(0, "how many files that are no pictures may be left out; one more is fatal")
    workers: int = option(-1, "processes; 0 works in this one, -1 chooses")
    validate: bool = option(False, "check and print the configuration, then exit")


@command(PackConfig, single_process=True)
def main(config: PackConfig) -> None:
    _check(config)
    if config.validate:
        return
    console = Console(highlight=False)
    out = Path(config.out or config.path)
    makers = _makers(config, out)
    if config.source in (SourceName.folder, SourceName.webdataset):
        _name_left_aside(Path(config.path), console)
    configuration = _frozen(config) | {"splits": ", ".join(makers)}
    pack(makers, out, configuration, allow_bad=config.allow_bad, workers=config.workers, console=console)
    print_table(console, {split: Shards(maker.directory) for split, maker in makers.items()})


def _check(config: PackConfig) -> None:
    """Values and combinations, before anything is read."""
    limits = {"size": (4, 4096), "shard_samples": (1, 10**6), "allow_bad": (0, 10**9), "workers": (-1, 1024)}
    for name, (low, high) in limits.items():
        if not low <= getattr(config, name) <= high:
            raise UserError(f"{name}={getattr(config, name)}: expected {low} to {high}")
    if not 0 <= config.test < 1:
        raise UserError(f"test={config.test}: expected a share, at least 0 and below 1")
    embedded, in_place = config.source is SourceName.digits, config.source is SourceName.webdataset
    if embedded and config.path:
        raise UserError(f"path={config.path!r}: source=digits is embedded and takes no path")
    if not embedded and not config.path:
        raise UserError(f"missing path=…, the directory of source={config.source.name}")
    if not embedded and not Path(config.path).is_dir():
        raise UserError(f"path={config.path!r}: no such directory")
    if not config.out and not in_place:
        raise UserError("missing out=…, the directory to write")
    if config.classes and config.source not in (SourceName.idx, SourceName.webdataset):
        raise UserError(f"classes={config.classes}: source={config.source.name} has its own class names")
    if config.test and in_place:
        raise UserError(f"test={config.test}: source=webdataset indexes shards as they are and cannot hold samples out")
    if config.source is SourceName.folder and Path(config.path).resolve() in (
        Path(config.out).resolve(),
        *Path(config.out).resolve().parents,
    ):
        raise UserError(f"out={config.out!r} lies in path={config.path!r}, where its files would be taken for pictures")


def _makers(config: PackConfig, out: Path) -> Makers:
    """Opens the source; one maker of shards for each of its splits."""
    path, size, mode = Path(config.path), config.size, config.mode.name
    names = [name.strip() for name in config.classes.split(",")] if config.classes else []
    if config.source is SourceName.webdataset:
        in_place = out.resolve() == path.resolve()
        tars = webdataset(path, mode)
        return {s: Index(part, part.directory if in_place else out / s, size, names) for s, part in tars.items()}
    if config.source is SourceName.digits:
        sources = digits(size, mode)
    elif config.source is SourceName.idx:
        sources = idx(path, size, mode, names)
    else:
        sources = folder(path, size, mode)
    if config.test and "test" in sources:
        raise UserError(f"test={config.test}: this source has a test split of its own; leave test= out")
    if config.test:
        sources = hold_out(sources["train"], config.test, config.seed)
    return {split: Repack(source, out / split, size, config.shard_samples) for split, source in sources.items()}


def _name_left_aside(path: Path, console: Console) -> None:
    used = set(split_directories(path).values())
    for name in HELD_OUT:
        if "train" in used and (path / name).is_dir() and name not in used:
            console.print(f"{name}/ is not packed: the test split is {', '.join(used - {'train'})}/")


def _frozen(config: PackConfig) -> dict[str, Any]:
    """What decides the bytes of the shards; ``allow_bad`` and ``workers`` may change."""
    values = to_dict(config)
    values["path"] = printable(str(Path(config.path).resolve())) if config.path else ""
    return {name: values[name] for name in FROZEN}


if __name__ == "__main__":
    sys.exit(main())
