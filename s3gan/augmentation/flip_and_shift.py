"""Random mirroring and shifts: the transform of consistency regularisation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from s3gan.augmentation.base import integers
from selfsup.pretext import augment as pretext_augment


@dataclass(frozen=True)
class FlipAndShift:
    """Mirrors every other image, then moves it by up to an eighth of its size; what moves in is reflected.

    The transform of consistency regularisation (Zhang et al. 2020): the meaning of an image stays the same.
    """

    draws: int = 3

    def __call__(self, images: Tensor, noise: Tensor) -> Tensor:
        reach = [size // 8 for size in images.shape[2:]]
        offsets = [integers(noise[:, axis], 2 * reach[axis] + 1) - reach[axis] for axis in (0, 1)]
        draws = pretext_augment.AugmentationDraws(torch.stack(offsets, 1), noise[:, 2] < 0.5)
        return pretext_augment.apply(images, draws)


consistency_transform = FlipAndShift()
