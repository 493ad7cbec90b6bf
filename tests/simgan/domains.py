"""Two tiny domains, simulated and real, in ten classes, as packed shards."""

from pathlib import Path

import numpy as np

from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard
from simgan.simulators.printed_digits import CLASSES, PrintedDigits

SIZE = 8


def write_domain(
    directory: Path, counts: tuple[int, ...] = (12, 5, 13), *, seed: int = 0, grey: int = 255, labels: bool = True
) -> Path:
    """Finished shards of printed digits whose white is ``grey``; without ``labels`` no sample has a ``.cls``."""
    source = PrintedDigits(sum(counts), SIZE, seed, "train")
    first = 0
    for number, count in enumerate(counts):
        samples = []
        for index in range(first, first + count):
            image, label, factors = source.read(index)
            dimmed = (image.astype(np.int64) * grey // 255).astype(np.uint8)
            samples.append(Sample(f"{index:08d}", encode_png(dimmed), "png", label if labels else None, factors))
        write_shard(directory, number, samples)
        first += count
    finish_index(directory, len(counts), classes=CLASSES, size=SIZE, mode="L")
    return directory


def train_words(synthetic: Path, real: Path, run: Path, **keys: object) -> list[str]:
    """The command line of a training run that takes a second or two."""
    small = {
        **{"batch": 8, "total_nimg": 80, "checkpoint_nimg": 8, "sample_nimg": 40, "log_nimg": 40, "keep_last": 100},
        **{
            "warm_refiner_nimg": 16,
            "warm_discriminator_nimg": 8,
            "history": 12,
            "ema_nimg": 16,
            "lr_r": 0.004,
            "width": 4,
            "blocks": 1,
            "threads": 1,
        },
    }
    words = [f"{name}={value}" for name, value in (small | keys).items()]
    return [f"synthetic={synthetic}", f"real={real}", f"run.dir={run}", *words]
