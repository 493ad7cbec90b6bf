"""The interface of augmentations: random changes of all images, real and fake alike, that the discriminator sees.

All randomness comes in as uniform numbers, one row per image. A caller that draws them by key for the global batch and
slices them gets the same images on any number of ranks. Every result is differentiable in the images; values may leave
[-1, 1].
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Augmentation(Protocol):
    """A random change of each image by itself."""

    @property
    def draws(self) -> int:
        """Uniform numbers that one image consumes; 0 where nothing is random."""
        ...

    def __call__(self, images: Tensor, noise: Tensor, /) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] and noise (N, draws) float32 uniform in [0, 1) -> (N, C, H, W), same dtype."""
        ...


@dataclass(frozen=True)
class NoAugmentation:
    """Leaves images as they are."""

    draws: int = 0

    def __call__(self, images: Tensor, noise: Tensor) -> Tensor:
        return images


def integers(u: Tensor, count: int) -> Tensor:
    """Uniform numbers u (N,) in [0, 1) as uniform integers 0 … count - 1: (N,) int64."""
    return (u * count).long()
