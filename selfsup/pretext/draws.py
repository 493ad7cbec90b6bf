"""Random draws for the images of a batch: keyed, and the same whichever process reads which of the images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cluster_jobs.core.seeds import generator


@dataclass(frozen=True)
class Draws:
    """What is drawn for the n images of this process, out of the draws for the whole global batch.

    Each draw has a name, which is part of its key: two draws of one name are equal. Every process draws for all `count`
    images and keeps its own part, so keep draws small: a few numbers per image rather than whole images.

    Attributes:
        count: images in the global batch.
        mine: which of them this process has: n.
        key: of all draws for this batch.
    """

    count: int
    mine: slice
    key: tuple[int | str, ...]

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Numbers (n, *shape) float32 in [0, 1), on the CPU."""
        return torch.rand(self.count, *shape, generator=self._generator(name))[self.mine]

    def normal(self, name: str, *shape: int) -> Tensor:
        """Numbers (n, *shape) float32 of mean 0 and variance 1, on the CPU."""
        return torch.randn(self.count, *shape, generator=self._generator(name))[self.mine]

    def integers(self, name: str, below: int, *shape: int) -> Tensor:
        """Numbers (n, *shape) int64 in 0 ... below - 1, on the CPU."""
        return torch.randint(below, (self.count, *shape), generator=self._generator(name))[self.mine]

    def _generator(self, name: str) -> torch.Generator:
        return generator("cpu", *self.key, name)
