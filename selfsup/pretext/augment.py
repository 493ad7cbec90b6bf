"""Label-preserving augmentation, random translations and mirrors. A draw is a function of its seed alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cluster_jobs.core.seeds import generator


@dataclass(frozen=True)
class AugmentationDraws:
    """Draws for n images: translations (n, 2) int64 in pixels, and whether to mirror (n,) bool. On the CPU."""

    offsets: Tensor
    mirror: Tensor

    def __getitem__(self, part: slice) -> "AugmentationDraws":
        return AugmentationDraws(self.offsets[part], self.mirror[part])


def draw(count: int, shift: int, flip: bool, *key: int | str) -> AugmentationDraws:
    """Translations of up to ``shift`` pixels either way and, with ``flip``, horizontal mirrors of every other one."""
    keyed = generator("cpu", *key)
    offsets = torch.randint(-shift, shift + 1, (count, 2), generator=keyed)
    mirror = torch.randint(0, 2, (count,), generator=keyed).bool() & flip
    return AugmentationDraws(offsets, mirror)


def apply(images: Tensor, draws: AugmentationDraws) -> Tensor:
    """Translates and mirrors images (n, C, H, W) of any dtype and device, with reflection at the border."""
    count, _, height, width = images.shape
    device = images.device
    offsets = draws.offsets.to(device, non_blocking=True)
    mirror = draws.mirror.to(device, non_blocking=True)
    rows = _reflect(torch.arange(height, device=device) - offsets[:, :1], height)
    columns = _reflect(torch.arange(width, device=device) - offsets[:, 1:], width)
    columns = torch.where(mirror[:, None], width - 1 - columns, columns)
    sample = torch.arange(count, device=device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]  # (n, H, W, C)
    return moved.permute(0, 3, 1, 2)


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Positions outside 0 … size - 1 reflected back inside, once, without repeating the border."""
    positions = positions.abs()
    return torch.minimum(positions, 2 * (size - 1) - positions).clamp(0, size - 1)
