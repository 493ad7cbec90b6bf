"""Joints read off depth pictures of hands: a stacked hourglass (Newell et al. 2016, arXiv 1603.06937) of two stacks, as
Shrivastava et al. 2017 (arXiv 1612.07828, section 3.2) trained it.

Heat maps have 64 × 64 cells for pictures of 224 × 224; smaller pictures have the largest power of two that is at most
half their side, and hourglasses that are less deep.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cluster_jobs.core.errors import UserError
from simgan.estimators.fit import ZeroConv

HEAT, DEEPEST = 64, 4  # cells along a side at most, and how often these are halved
SMALLEST = 4  # cells along a side, where an hourglass is narrowest
FEATURES, STACKS = 256, 2
SPREAD = 1.0  # standard deviation of a target's Gaussian in cells
ROTATION = 20.0  # degrees, to either side
CROP = 0.85  # side of the smallest random crop


def heat_side(size: int) -> int:
    """Cells along a side of the heat maps of pictures of ``size``. Raises UserError for less than 16 pixels."""
    if size < 4 * SMALLEST:
        raise UserError(f"pictures of {size} × {size}: too small for the hourglass, expected {4 * SMALLEST} or more")
    return min(HEAT, 2 ** int(math.log2(size // 2)))


def normalised(width: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())


class Residual(nn.Module):
    """A bottleneck with normalisation before each convolution: 1×1, 3×3, 1×1; half the maps inside."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        half = max(1, after // 2)
        self.body = nn.Sequential(
            *(normalised(before), nn.Conv2d(before, half, 1)),
            *(normalised(half), nn.Conv2d(half, half, 3, padding=1)),
            *(normalised(half), nn.Conv2d(half, after, 1)),
        )
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.body(x)


class Hourglass(nn.Module):
    """Halves its maps ``depth`` times and doubles them again, with a branch at every size."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.branch, self.before, self.after = (Residual(width, width) for _ in range(3))
        self.inner = Hourglass(width, depth - 1) if depth > 1 else Residual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.after(self.inner(self.before(functional.max_pool2d(x, 2))))
        return self.branch(x) + functional.interpolate(inner, scale_factor=2, mode="nearest")


class StackedHourglass(nn.Module):
    """(N, C, S, S) float32 in [-1, 1] → in training the heat maps of all stacks, (N, stacks, joints, H, H); in
    evaluation the joints that the last stack shows, (N, joints, 2): x and y in pixels of the picture.

    The picture is scaled to 4 H, for 224 pixels 256; a stem of 7×7 by 2, residual, pooling by 2, and two residuals
    leads to H.

    Args:
        width: the numbers of maps as a multiple of Newell's 256.
    """

    def __init__(self, channels: int, size: int, joints: int, width: float) -> None:
        super().__init__()
        self.size, self.heat = size, heat_side(size)
        maps = max(4, round(FEATURES * width))
        half, quarter = maps // 2, maps // 4
        depth = min(DEEPEST, int(math.log2(self.heat // SMALLEST)))
        self.stem = nn.Sequential(
            *(nn.Conv2d(channels, quarter, 7, stride=2, padding=3), normalised(quarter), Residual(quarter, half)),
            *(nn.MaxPool2d(2), Residual(half, half), Residual(half, maps)),
        )
        self.hourglasses = nn.ModuleList(
            nn.Sequential(*(Hourglass(maps, depth), Residual(maps, maps), nn.Conv2d(maps, maps, 1), normalised(maps)))
            for _ in range(STACKS)
        )
        self.heads = nn.ModuleList(ZeroConv(maps, joints, 1) for _ in range(STACKS))
        self.features_back = nn.ModuleList(nn.Conv2d(maps, maps, 1) for _ in range(STACKS - 1))
        self.heat_back = nn.ModuleList(nn.Conv2d(joints, maps, 1) for _ in range(STACKS - 1))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.heat_maps(x)
        return maps if self.training else decode(maps[:, -1], self.size)

    def heat_maps(self, x: Tensor) -> Tensor:
        """(N, stacks, joints, H, H)."""
        side = 4 * self.heat
        if x.shape[-1] != side:
            x = functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
        x, found = self.stem(x), []
        for stack, (hourglass, head) in enumerate(zip(self.hourglasses, self.heads, strict=True)):
            features = hourglass(x)
            found.append(head(features))
            if stack < STACKS - 1:
                x = x + self.features_back[stack](features) + self.heat_back[stack](found[-1])
        return torch.stack(found, 1)


def gaussians(joints: Tensor, size: int, heat: int) -> Tensor:
    """Joints (N, J, 2) in pixels as heat maps (N, J, H, H): 1 at the joint, with standard deviation SPREAD; rows y."""
    cells = (joints + 0.5) * (heat / size) - 0.5
    axis = torch.arange(heat, device=joints.device, dtype=joints.dtype)
    x, y = (torch.exp(-0.5 * ((axis - cells[..., place, None]) / SPREAD) ** 2) for place in (0, 1))
    return y[..., :, None] * x[..., None, :]


def decode(maps: Tensor, size: int) -> Tensor:
    """Heat maps (N, J, H, H) as joints (N, J, 2) in pixels: the largest cell, moved a quarter of a cell towards the
    larger of its neighbours along each axis."""
    heat = maps.shape[-1]
    flat = maps.flatten(2)
    place = flat.argmax(2)
    row, column = place // heat, place % heat

    def at(row: Tensor, column: Tensor) -> Tensor:
        inside = (row >= 0) & (row < heat) & (column >= 0) & (column < heat)
        value = flat.gather(2, (row * heat + column).clamp(0, heat * heat - 1)[..., None])[..., 0]
        return value.where(inside, -torch.inf)

    x = column + 0.25 * torch.sign(at(row, column + 1) - at(row, column - 1))
    y = row + 0.25 * torch.sign(at(row + 1, column) - at(row - 1, column))
    return (torch.stack([x, y], -1) + 0.5) * (size / heat) - 0.5


class HandProblem:
    """Joints read off hands: targets are (N, J, 2), x and y in pixels."""

    name = "hand"

    def __init__(self, size: int, joints: int) -> None:
        self.size, self.joints = size, joints

    def build(self, shape: tuple[int, int, int], width: float) -> nn.Module:
        """The network for pictures of a shape (C, S, S)."""
        return StackedHourglass(shape[0], self.size, self.joints, width)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared difference to the Gaussians, summed over stacks and cells, the mean over joints; (n,)."""
        wanted = gaussians(target, self.size, output.shape[-1])
        return (output - wanted[:, None]).square().sum((1, 3, 4)).mean(1)

    def augment(self, images: Tensor, targets: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Turned by up to ROTATION either way about the middle, then a crop of CROP to all of the side, enlarged.
        Pixels are taken, not mixed: the mean of two depths is the depth of neither. Around the picture is background.
        """
        draws = torch.rand(len(images), 4, generator=random, device=images.device)
        angle = torch.deg2rad(ROTATION * (2 * draws[:, 0] - 1))
        side = CROP + (1 - CROP) * draws[:, 1]
        shift = (1 - side)[:, None] * (2 * draws[:, 2:] - 1)
        cosine, sine = torch.cos(angle), torch.sin(angle)
        turn = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
        return moved(images, targets, turn, side, shift)


def moved(images: Tensor, joints: Tensor, turn: Tensor, side: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures (N, C, S, S) in [-1, 1] and joints (N, J, 2) in pixels, seen through a square of ``side`` (N,) of the
    whole, at ``shift`` (N, 2) in halves of the side, turned by ``turn`` (N, 2, 2)."""
    size = images.shape[-1]
    matrix = turn * side[:, None, None]
    places = functional.affine_grid(torch.cat([matrix, shift[..., None]], 2), list(images.shape), align_corners=False)
    shown = functional.grid_sample(images + 1, places, mode="nearest", align_corners=False) - 1
    centred = (2 * joints + 1) / size - 1 - shift[:, None]
    back = (centred @ turn) / side[:, None, None]  # rows times turn: its inverse is its transpose
    return shown, ((back + 1) * size - 1) / 2
