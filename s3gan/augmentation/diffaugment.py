"""DiffAugment (Zhao et al. 2020): differentiable colour changes, translation and cutout, always on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster_jobs.core.errors import UserError
from s3gan.augmentation.base import integers


def _brightness(images: Tensor, u: Tensor) -> Tensor:
    """Adds up to ±½."""
    return images + _each(u[:, 0] - 0.5)


def _saturation(images: Tensor, u: Tensor) -> Tensor:
    """Scales the distance to the grey image by up to 2; grey images are unchanged."""
    grey = images.mean(1, keepdim=True)
    return (images - grey) * _each(2 * u[:, 0]) + grey


def _contrast(images: Tensor, u: Tensor) -> Tensor:
    """Scales the distance to the image's mean by ½ to 1½."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * _each(u[:, 0] + 0.5) + mean


def _translation(images: Tensor, u: Tensor) -> Tensor:
    """Moves by up to an eighth of height and width; zeros move in."""
    for dim in (2, 3):
        size = images.shape[dim]
        reach = (size + 4) // 8
        source = torch.arange(size, device=images.device) + integers(u[:, dim - 2], 2 * reach + 1)[:, None] - reach
        indices = _along(source, dim)
        inside = (indices >= 0) & (indices < size)
        moved = images.gather(dim, indices.clamp(0, size - 1).expand_as(images))
        images = torch.where(inside, moved, 0.0)
    return images


def _cutout(images: Tensor, u: Tensor) -> Tensor:
    """Blanks a rectangle of half the height and half the width, whose middle lies anywhere; it may stick out."""
    cut = torch.ones((), dtype=torch.bool, device=images.device)
    for dim in (2, 3):
        size = images.shape[dim]
        length = (size + 1) // 2
        first = integers(u[:, dim - 2], size + 1 - length % 2)[:, None] - length // 2
        index = torch.arange(size, device=images.device)
        cut = cut & _along((index >= first) & (index < first + length), dim)
    return torch.where(cut, 0.0, images)


def _each(value: Tensor) -> Tensor:
    """One number per image (N,), to be broadcast over (N, C, H, W)."""
    return value[:, None, None, None]


def _along(values: Tensor, dim: int) -> Tensor:
    """(N, size) as (N, 1, size, 1) for rows (dim 2), as (N, 1, 1, size) for columns (dim 3)."""
    return values[:, None, :, None] if dim == 2 else values[:, None, None, :]


Step = tuple[int, Callable[[Tensor, Tensor], Tensor]]  # uniform numbers an image, what they do
POLICIES: dict[str, tuple[Step, ...]] = {
    "color": ((1, _brightness), (1, _saturation), (1, _contrast)),
    "translation": ((2, _translation),),
    "cutout": ((2, _cutout),),
}


@dataclass(frozen=True)
class DiffAugment:
    """Differentiable augmentation (Zhao et al. 2020, section 3), always on: the operations of their public code.

    Args:
        policy: names of `POLICIES` in the order in which they are applied, separated by commas.

    Raises:
        UserError: an unknown name.
    """

    policy: str = "color,translation,cutout"

    def __post_init__(self) -> None:
        for name in self.policy.split(","):
            if name not in POLICIES:
                raise UserError(f"policy={self.policy}: {name!r} is none of {', '.join(POLICIES)}")

    @property
    def steps(self) -> list[Step]:
        return [step for name in self.policy.split(",") for step in POLICIES[name]]

    @property
    def draws(self) -> int:
        return sum(count for count, _ in self.steps)

    def __call__(self, images: Tensor, noise: Tensor) -> Tensor:
        changed = images.to(torch.promote_types(images.dtype, torch.float32))
        parts = noise.split([count for count, _ in self.steps], dim=1)
        for (_, change), u in zip(self.steps, parts, strict=True):
            changed = change(changed, u)
        return changed.to(images.dtype)
