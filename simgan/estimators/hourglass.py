"""The estimator of hand joints: a stacked hourglass (Newell et al. 2016, arXiv 1603.06937) of two stacks, as trained by
Shrivastava et al. 2017 (arXiv 1612.07828, section 3.2).

Heat maps have 64 × 64 cells for images of 224 × 224. For smaller images their side is the largest power of two up to
half the image's side, and hourglasses are less deep.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cluster_jobs.core.errors import UserError
from simgan.estimators.fit import ZeroConv

HEAT, DEEPEST = 64, 4  # maximum of cells along a side, and of how often these are halved
SMALLEST = 4  # cells along a side at the narrowest point of an hourglass
FEATURES, STACKS = 256, 2
SPREAD = 1.0  # standard deviation of a target's Gaussian in cells
ROTATION = 20.0  # degrees, to either side
CROP = 0.85  # side of the smallest random crop


def heat_side(size: int) -> int:
    """Side of the heat maps, in cells, for images of ``size``. Raises UserError for less than 16 pixels."""
    if size < 4 * SMALLEST:
        raise UserError(f"pictures of {size} × {size}: too small for the hourglass, expected {4 * SMALLEST} or more")
    return min(HEAT, 2 ** int(math.log2(size // 2)))


def normalised(width: int) -> nn.Sequential:
    """Batch norm and ReLU."""
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())


class Residual(nn.Module):
    """A pre-activated bottleneck block: 1×1, 3×3 and 1×1 convolutions with half the maps inside."""

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
    """Downsamples ``depth`` times by 2 and upsamples again, with a skip branch at every resolution."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.branch, self.before, self.after = (Residual(width, width) for _ in range(3))
        self.inner = Hourglass(width, depth - 1) if depth > 1 else Residual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.after(self.inner(self.before(functional.max_pool2d(x, 2))))
        return self.branch(x) + functional.interpolate(inner, scale_factor=2, mode="nearest")


class StackedHourglass(nn.Module):
    """(N, C, S, S) float32 in [-1, 1] → in training the heat maps of all stacks, (N, stacks, joints, H, H); in
    evaluation the joints of the last stack, (N, joints, 2): x and y in pixels of the image.

    The image is scaled to 4 H pixels (224 to 256). The stem, a 7×7 convolution with stride 2, a residual block, max
    pooling by 2 and two residual blocks, reduces it to H.

    Args:
        width: the number of maps as a multiple of Newell's 256.
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
        """The heat maps of all stacks, (N, stacks, joints, H, H)."""
        side = 4 * self.heat
        if x.shape[-1] != side:
            x = functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
        x, maps = self.stem(x), []
        for stack, (hourglass, head) in enumerate(zip(self.hourglasses, self.heads, strict=True)):
            features = hourglass(x)
            maps.append(head(features))
            if stack < STACKS - 1:
                x = x + self.features_back[stack](features) + self.heat_back[stack](maps[-1])
        return torch.stack(maps, 1)


def gaussians(joints: Tensor, size: int, heat: int) -> Tensor:
    """Joints (N, J, 2) in pixels as heat maps (N, J, H, H): Gaussians of height 1 and standard deviation SPREAD."""
    cells = (joints + 0.5) * (heat / size) - 0.5
    axis = torch.arange(heat, device=joints.device, dtype=joints.dtype)
    x, y = (torch.exp(-0.5 * ((axis - cells[..., coordinate, None]) / SPREAD) ** 2) for coordinate in (0, 1))
    return y[..., :, None] * x[..., None, :]


def decode(maps: Tensor, size: int) -> Tensor:
    """Heat maps (N, J, H, H) as joints (N, J, 2) in pixels: the largest cell, moved a quarter of a cell towards the
    larger of its neighbours along each axis."""
    heat = maps.shape[-1]
    flat = maps.flatten(2)
    cell = flat.argmax(2)
    row, column = cell // heat, cell % heat

    def at(row: Tensor, column: Tensor) -> Tensor:
        inside = (row >= 0) & (row < heat) & (column >= 0) & (column < heat)
        value = flat.gather(2, (row * heat + column).clamp(0, heat * heat - 1)[..., None])[..., 0]
        return value.where(inside, -torch.inf)

    x = column + 0.25 * torch.sign(at(row, column + 1) - at(row, column - 1))
    y = row + 0.25 * torch.sign(at(row + 1, column) - at(row - 1, column))
    return (torch.stack([x, y], -1) + 0.5) * (size / heat) - 0.5


class HandProblem:
    """Estimating the joints of hands: targets are (N, J, 2), x and y in pixels."""

    name = "hand"

    def __init__(self, size: int, joints: int) -> None:
        self.size, self.joints = size, joints

    def build(self, shape: tuple[int, int, int], width: float) -> nn.Module:
        """The network for images of a shape (C, S, S)."""
        return StackedHourglass(shape[0], self.size, self.joints, width)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared difference to the Gaussians, summed over stacks and cells, averaged over joints; (n,)."""
        wanted = gaussians(target, self.size, output.shape[-1])
        return (output - wanted[:, None]).square().sum((1, 3, 4)).mean(1)

    def augment(self, images: Tensor, targets: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random rotation of up to ±ROTATION about the middle and a random crop of CROP to 1 of the side, enlarged.

        Sampling is by nearest neighbour, because the mean of two depths is the depth of neither. Outside the image is
        background.
        """
        draws = torch.rand(len(images), 4, generator=random, device=images.device)
        angle = torch.deg2rad(ROTATION * (2 * draws[:, 0] - 1))
        side = CROP + (1 - CROP) * draws[:, 1]
        shift = (1 - side)[:, None] * (2 * draws[:, 2:] - 1)
        cosine, sine = torch.cos(angle), torch.sin(angle)
        turn = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
        return transformed(images, targets, turn, side, shift)


def transformed(images: Tensor, joints: Tensor, turn: Tensor, side: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Crops and rotates images (N, C, S, S) in [-1, 1] and their joints (N, J, 2) in pixels.

    Args:
        turn: (N, 2, 2) rotation matrices.
        side: (N,) side of the cropped square, as a share of the image's.
        shift: (N, 2) position of the square's centre, in halves of the image's side.
    """
    size = images.shape[-1]
    matrix = turn * side[:, None, None]
    grid = functional.affine_grid(torch.cat([matrix, shift[..., None]], 2), list(images.shape), align_corners=False)
    seen = functional.grid_sample(images + 1, grid, mode="nearest", align_corners=False) - 1
    centred = (2 * joints + 1) / size - 1 - shift[:, None]
    back = (centred @ turn) / side[:, None, None]  # rows times turn: its inverse is its transpose
    return seen, ((back + 1) * size - 1) / 2
