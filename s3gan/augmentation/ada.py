"""Adaptive discriminator augmentation (ADA, Karras et al. 2020): its strength follows how much D overfits.

Pixel blitting, general geometric and colour transformations ("bgc"; appendix B), each with the probability p, which
follows the share of real images that score as real. Differences from the paper's code: all geometry is one bilinear
sampling, without its band-limited resampling at twice the size, and borders are reflected repeatedly, where the paper's
code zero-pads after one reflection. Image-space filtering and corruption are left out.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Operation(NamedTuple):
    """One operation, in the order of application. In addition to its amounts it takes a number that switches it on."""

    name: str
    neutral: tuple[float, ...]  # the uniform numbers at which it leaves every image as it is
    turning: bool = False  # makes an image look turned otherwise, also by mirroring: 90° becomes 270°
    tries: int = 1  # operations that together have the probability p


OPERATIONS = (
    Operation("flip", (0.0,), turning=True),
    Operation("quarter_turns", (0.0,), turning=True),
    Operation("shift", (0.5, 0.5)),
    Operation("scale", (0.5,)),
    Operation("turn", (0.5,), turning=True, tries=2),
    Operation("stretch", (0.5,)),
    Operation("turn_again", (0.5,), turning=True, tries=2),
    Operation("drift", (0.5, 0.5)),
    Operation("brightness", (0.5,)),
    Operation("contrast", (0.5,)),
    Operation("inversion", (0.0,)),
    Operation("hue", (0.5,)),
    Operation("saturation", (0.5,)),
)
GEOMETRIC = 8  # the first so many operations; the others are of colour
AMOUNTS = [len(operation.neutral) for operation in OPERATIONS]
Amounts = dict[str, Tensor]  # by operation: (N, numbers), uniform in [0, 1), neutral where it is off


class AdaptiveAugmentation(nn.Module):
    """An `Augmentation` whose strength adapts. All state is in buffers; nothing waits for the device.

    Args:
        batch: real images (global) behind each call of `observe`.
        turning: whether operations may change how an image seems turned: mirroring, quarter turns, rotation. Not where
            a head must predict the turns of augmented images.
        target: of the mean sign of real scores (section 3.1).
        speed_nimg: images in which p can rise from 0 to 1.
        interval: observations between two changes of p.
    """

    draws = len(OPERATIONS) + sum(AMOUNTS)
    p: Tensor  # probability of each operation, in [0, 1]
    signs: Tensor
    observations: Tensor
    neutral: Tensor
    allowed: Tensor
    tries: Tensor
    operation: Tensor

    def __init__(
        self,
        batch: int,
        *,
        turning: bool = True,
        p: float = 0.0,
        target: float = 0.6,
        speed_nimg: int = 500_000,
        interval: int = 4,
    ) -> None:
        super().__init__()
        self.target, self.interval = target, interval
        self.change = batch * interval / speed_nimg
        self.register_buffer("p", torch.tensor(p))
        self.register_buffer("signs", torch.zeros(()))  # sum over the observations since p changed
        self.register_buffer("observations", torch.zeros(()))
        constants = {
            "neutral": torch.tensor([value for operation in OPERATIONS for value in operation.neutral]),
            "allowed": torch.tensor([turning or not operation.turning for operation in OPERATIONS]),
            "tries": torch.tensor([float(operation.tries) for operation in OPERATIONS]),
            "operation": torch.arange(len(OPERATIONS)).repeat_interleave(torch.tensor(AMOUNTS)),  # of each amount
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    @torch.no_grad()
    def observe(self, sign: Tensor) -> None:
        """Takes in the mean sign (scalar) of the real scores of one discriminator step, over all ranks.

        Every `interval`-th time p rises or falls by a fixed amount, as the mean lies above or below the target. A mean
        that is not finite is not counted. The sign must mean something: where a loss only compares scores
        (relativistic, Wasserstein), it is that of real minus fake.
        """
        finite = sign.isfinite()
        self.signs.add_(torch.where(finite, sign, 0.0))
        self.observations.add_(finite)
        due = self.observations == self.interval
        change = self.change * torch.sign(self.signs / self.interval - self.target)
        self.p.copy_(torch.where(due, (self.p + change).clamp(0, 1), self.p))
        self.signs.mul_(~due)
        self.observations.mul_(~due)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Images (N, 1 or 3, H, W) in [-1, 1], noise (N, draws) float32 in [0, 1) -> (N, C, H, W) of the same dtype.

        An image for which no operation is on stays exactly as it is.
        """
        changed = images.to(torch.promote_types(images.dtype, torch.float32))
        switches, amounts = noise.split([len(OPERATIONS), sum(AMOUNTS)], dim=1)
        on = (switches < 1 - (1 - self.p) ** (1 / self.tries)) & self.allowed
        values = torch.where(on[:, self.operation], amounts, self.neutral)
        by_name: Amounts = dict(zip((o.name for o in OPERATIONS), values.split(AMOUNTS, dim=1), strict=True))
        moved = on[:, :GEOMETRIC].any(1)[:, None, None, None]
        coloured = on[:, GEOMETRIC:].any(1)[:, None, None, None]
        changed = torch.where(moved, resample(changed, *geometry(by_name, *images.shape[2:])), changed)
        changed = torch.where(coloured, recolour(changed, by_name), changed)
        return changed.to(images.dtype)


def geometry(amounts: Amounts, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where each pixel of the result comes from: source = matrix @ position + offset.

    Positions (x, y) are in pixels from the image's centre, x to the right, y down: (N, 2, 2) and (N, 2).
    """
    shift = torch.stack([(size / 8 * _signed(u)).round() for size, u in _per_axis(amounts["shift"], height, width)], 1)
    drift = torch.stack([size / 8 * _normal(u) for size, u in _per_axis(amounts["drift"], height, width)], 1)
    mirrored = 1 - 2 * _count(amounts["flip"], 2)
    stretch = torch.exp2(0.2 * _normal(amounts["stretch"]))
    blit = _compose(_scaling(mirrored, torch.ones_like(mirrored)), _turn(0.5 * _count(amounts["quarter_turns"], 4)))
    general = _compose(_turn(_signed(amounts["turn"])), _scaling(1 / stretch, stretch))
    general = _compose(general, _turn(_signed(amounts["turn_again"])))
    matrix = _compose(blit, general) / torch.exp2(0.2 * _normal(amounts["scale"]))[:, :, None]
    return matrix, -_apply(blit, shift) - _apply(matrix, drift)


def resample(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Bilinear samples of images (N, C, H, W) at positions of `geometry`; images are reflected beyond their border."""
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device, dtype=matrix.dtype) - (width - 1) / 2
    y = torch.arange(height, device=images.device, dtype=matrix.dtype) - (height - 1) / 2
    # by hand, as `affine_grid` multiplies matrices, in less than float32 where the run allows that
    source = matrix[:, None, None, :, 0] * x[:, None] + matrix[:, None, None, :, 1] * y[:, None, None]
    source = source + offset[:, None, None, :]  # (N, H, W, 2)
    grid = torch.stack([source[..., 0] * (2 / (width - 1)), source[..., 1] * (2 / (height - 1))], -1)
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="reflection", align_corners=True)


def recolour(images: Tensor, amounts: Amounts) -> Tensor:
    """Brightness, contrast, inversion of luma, rotation of hue and saturation of images (N, 1 or 3, H, W).

    A pixel is its mean over the channels (luma) plus a rest at right angles to it (chroma, none in grey images). Each
    of these operations acts on one or on both alike, so they combine into two gains, an angle and a summand.
    """
    assert images.shape[1] in (1, 3), f"{images.shape[1]} channels"
    brightness, contrast, inversion, hue, saturation = (
        amounts[name][:, :, None, None] for name in ("brightness", "contrast", "inversion", "hue", "saturation")
    )
    gain = torch.exp2(0.5 * _normal(contrast))
    luma = images.mean(1, keepdim=True)
    result = gain * (1 - 2 * _count(inversion, 2)) * (luma + 0.2 * _normal(brightness))
    if images.shape[1] == 1:
        return result
    chroma = images - luma
    across = (images.roll(1, 1) - images.roll(-1, 1)) / math.sqrt(3)  # grey axis × colour: chroma turned by 90°
    angle = math.pi * _signed(hue)
    return result + gain * torch.exp2(_normal(saturation)) * (angle.cos() * chroma + angle.sin() * across)


def _count(u: Tensor, options: int) -> Tensor:
    """Uniform in 0 … options - 1, as float."""
    return (u * options).floor()


def _signed(u: Tensor) -> Tensor:
    """Uniform in [-1, 1)."""
    return 2 * u - 1


def _normal(u: Tensor) -> Tensor:
    """Standard normal, by the inverse of its distribution function; 0 is as rare as the smallest float32 draw."""
    return torch.special.ndtri(u.clamp(min=2.0**-25))


def _per_axis(amounts: Tensor, height: int, width: int) -> list[tuple[int, Tensor]]:
    return [(width, amounts[:, 0]), (height, amounts[:, 1])]


def _turn(half_turns: Tensor) -> Tensor:
    """Rotations by angles (N, 1) in units of π: (N, 2, 2)."""
    cos, sin = (math.pi * half_turns).cos(), (math.pi * half_turns).sin()
    return torch.cat([cos, -sin, sin, cos], 1).unflatten(1, (2, 2))


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    """Diagonal matrices of factors (N, 1): (N, 2, 2)."""
    return torch.diag_embed(torch.cat([x, y], 1))


def _compose(first: Tensor, second: Tensor) -> Tensor:
    """first @ second of (N, 2, 2), as products and sums in full precision."""
    return (first[:, :, :, None] * second[:, None]).sum(2)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix (N, 2, 2) @ vector (N, 2), likewise."""
    return (matrix * vector[:, None]).sum(2)
