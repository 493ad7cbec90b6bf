"""Copies labelled shards to what other tools read: ``python -m s3gan.export pool=POOL out=DIR format=imagefolder``.

Any shards will do: pools of s3gan.generate and simgan.refine, simulated ones, real ones with labels. Every picture is
written as the project itself sees it, at the shards' size and in their mode.
"""

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.output_directory import OutputFile
from cluster_jobs.data.pool import read_labels
from cluster_jobs.data.shards import Shards
from s3gan.pools import image_folder, npz
from s3gan.pools.exported import Exported


class Format(Enum):
    imagefolder = "imagefolder"
    npz = "npz"


class Unlabelled(Enum):
    refuse = "refuse"
    leave_out = "leave_out"


@dataclass
class ExportConfig:
    """Copies labelled shards (a pool, say) to an image folder, one directory per class, or to one NumPy file.

    imagefolder: OUT/CLASS/KEY.png, as torchvision's ImageFolder reads it, and OUT/classes.csv (label,class,folder,
    images). ImageFolder numbers the folders in sorted order; the csv has the shards' numbers. npz: images uint8 (N, H,
    W, C), labels int64 (N,), class_names (classes,). The output is either complete or absent. Running the command again
    finds it finished; after a kill an image folder is resumed, an npz is written again from the beginning.
    """

    pool: str = option(MISSING, "shards to export: a directory or a URL", path=True)
    out: str = option(MISSING, "what to write: a new or empty directory, or for format=npz a new file .npz", path=True)
    format: Format = option(Format.imagefolder, "directories of PNG files, or one file of arrays")
    unlabelled: Unlabelled = option(Unlabelled.refuse, "samples without a label: refuse the shards, or leave them out")
    validate: bool = option(False, "check and print the configuration, then exit")


WRITERS: dict[Format, Callable[[OutputFile, Exported], bool]] = {
    Format.imagefolder: image_folder.write,
    Format.npz: npz.write,
}


@command(ExportConfig, single_process=True)
def main(config: ExportConfig) -> None:
    out = Path(os.path.abspath(config.out))
    if config.format is Format.npz and out.suffix != ".npz":
        raise UserError(f"out={config.out!r}: expected a file name that ends in .npz for format=npz")
    if config.validate:
        return
    exported = choose(Shards(config.pool), config.unlabelled)
    output = OutputFile(out, finished=lambda: out.is_file() or (out / image_folder.RECORD).is_file())
    with output.locked():
        written = WRITERS[config.format](output, exported)
    images, classes = len(exported.indices), len(set(exported.labels.tolist()))
    print(f"{config.out}{'' if written else ' is finished'}: {images:,} images of {classes:,} classes", flush=True)


def choose(shards: Shards, unlabelled: Unlabelled) -> Exported:
    """The samples to export: those that have a label.

    Raises:
        UserError: some have none and are to be refused, or none has one.
    """
    labels, names = read_labels(shards)  # an export is for the owner of the labels; nothing here trains
    without = np.flatnonzero(labels < 0)
    if without.size == len(labels):
        raise UserError(f"pool={shards.directory!r}: none of its {len(labels):,} samples has a label")
    if without.size and unlabelled is Unlabelled.refuse:
        raise UserError(
            f"pool={shards.directory!r}: {without.size:,} of {len(labels):,} samples have no label, the first is "
            f"{shards.key(int(without[0]))}; unlabelled=leave_out exports the others"
        )
    indices = np.flatnonzero(labels >= 0)
    digest = hashlib.sha256(labels.astype("<i4").tobytes() + "\n".join(names).encode()).hexdigest()
    identity = {"fingerprint": shards.fingerprint, "labels": digest, "size": shards.size, "channels": shards.channels}
    return Exported(shards, indices, labels[indices].astype(np.int64), names, identity)


if __name__ == "__main__":
    sys.exit(main())
