"""Samples of one generator, drawn by any number of ranks: the same images whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster_jobs.distributed.job import Job
from cluster_jobs.reporting.section import Section
from s3gan.inference.sampling import block_size, draw_noise, make_images
from s3gan.networks import Generator

DrawNoise = Callable[..., Tensor]  # noise(indices, truncation=0.0) -> (n, z_dim)


@dataclass(frozen=True)
class SampledSection:
    """Samples to draw, and the section of the report that shows them.

    Attributes:
        what: names the work on the progress bar.
        z: (n, z_dim) float32.
        conditions: labels (n,) int64, or weights (n, classes) float32 whose rows sum to 1.
        make: the section of the images, uint8 (n, C, H, W), in the order of z. Called on the main rank alone.
    """

    what: str
    z: Tensor
    conditions: Tensor
    make: Callable[[np.ndarray], Section]


@dataclass(frozen=True)
class Sampler:
    """A generator ready for evaluation on the job's device, and the seed of its noise."""

    generator: Generator
    network: dict[str, Any]  # the run's network.json
    seed: int
    job: Job

    def noise(self, indices: Sequence[int], truncation: float = 0.0) -> Tensor:
        """(n, z_dim) float32, keyed by index as in a pool: see `s3gan.inference.sampling.draw_noise`."""
        return draw_noise(self.seed, indices, self.network["z_dim"], truncation)

    def draw(self, z: Tensor, conditions: Tensor, what: str) -> np.ndarray:
        """uint8 (n, C, H, W) on every rank. Every rank must call this: blocks are shared out over the ranks."""
        network, job = self.network, self.job
        block, count = block_size(network["size"]), len(z)
        drawn = [np.empty((0, network["channels"], network["size"], network["size"]), np.uint8)]
        step = block * job.world
        for start in job.track(range(0, count, step), count, "images", what, step):
            mine = slice(start + job.rank * block, min(start + (job.rank + 1) * block, count))
            images = drawn[0]  # none: the last round may have no block for this rank
            if mine.start < count:
                images = make_images(self.generator, z[mine], conditions[mine], block, job.device)
            drawn.append(job.gather(torch.from_numpy(images).to(job.device)).cpu().numpy())
        return np.concatenate(drawn)
