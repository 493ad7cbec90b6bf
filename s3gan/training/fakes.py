"""Noise and conditions of generated images, keyed so that they do not depend on the number of ranks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cluster_jobs.core import seeds


@dataclass(frozen=True)
class Fakes:
    """Draws noise and conditions, keyed by purpose and stream position and equal for any number of ranks.

    `mine` selects this rank's share of the global batch (`cluster_jobs.distributed.batch_split`). `weights` (classes,)
    float64 is the distribution of the conditions; None is uniform.
    """

    seed: int
    batch: int  # global
    mine: slice
    z_dim: int
    classes: int
    device: torch.device
    weights: Tensor | None = None

    def draw(self, purpose: str, position: int) -> tuple[Tensor, Tensor]:
        """This rank's z (n, z_dim) float32 ~ N(0, I) and labels (n,) int64 of the global batch at `position`."""
        generator = seeds.generator(self.device, self.seed, purpose, position)
        z = torch.randn(self.batch, self.z_dim, generator=generator, device=self.device)
        if self.weights is None:
            labels = torch.randint(self.classes, (self.batch,), generator=generator, device=self.device)
        else:
            labels = torch.multinomial(self.weights, self.batch, replacement=True, generator=generator)
        return z[self.mine], labels[self.mine]

    def uniform(self, purpose: str, position: int, columns: int) -> Tensor:
        """This rank's (n, columns) float32, uniform in [0, 1), of the global batch at `position`."""
        if not columns:  # most steps ask for none: no generator is seeded then
            return torch.empty(self.batch, 0, device=self.device)[self.mine]
        generator = seeds.generator(self.device, self.seed, "uniform", purpose, position)
        return torch.rand(self.batch, columns, generator=generator, device=self.device)[self.mine]
