"""The refiner R: a ResNet at full resolution, without stride or pooling (SimGAN, arXiv:1612.07828, section 2.2)."""

import torch
from torch import nn

from simgan.networks.image_noise import image_noise


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with a skip connection around them; initially the identity (for inputs of at least 0)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def receptive_field(*, blocks: int, stem: int = 3, fold: int = 1) -> int:
    """The side in pixels of the input that one output pixel of R depends on (up to fold - 1 fewer for some pixels)."""
    return fold * (stem + 4 * blocks)


class Refiner(nn.Module):
    """``(N, C, H, W) float32 in [-1, 1]`` to refined images of the same shape: stem, residual blocks, 1×1 convolution.

    The paper's networks: gaze has width 64, four blocks and a 3×3 stem; hand pose ten blocks and a 7×7 stem. Unlike the
    paper's, the output layer predicts a change that is added to the input. It is zero initially and has no tanh, so R
    begins as the identity. With a tanh, self-regularisation alone (or a D that is too strong) can drive R to the
    constant image of the background, because the median minimises ‖R(x) - x‖₁; there the tanh is saturated and R cannot
    leave. Output values may lie outside [-1, 1]; they are clipped when images are written.

    Args:
        width: feature maps of the residual blocks.
        fold: 1 is the paper's. Above 1, every ``fold`` × ``fold`` pixels become channels (pixel unshuffle) and are
            rearranged at the end: the receptive field is ``fold`` times as wide for 1 / ``fold``² of the work. For
            domain gaps wider than a few pixels (a blurred stroke) in images without detail at the pixel.
        noise: 0 is the paper's. Above 0, the number of noise channels that R gets in addition (``image_noise``), from
            which it can make a sensor's noise.
    """

    def __init__(self, channels: int, *, width: int, blocks: int, stem: int = 3, fold: int = 1, noise: int = 0) -> None:
        super().__init__()
        self.noise = noise
        self.fold = nn.PixelUnshuffle(fold)
        self.stem = nn.Conv2d((channels + noise) * fold**2, width, stem, padding=stem // 2)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.output = nn.Conv2d(width, channels * fold**2, 1)
        self.unfold = nn.PixelShuffle(fold)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = torch.cat([x, image_noise(x, self.noise)], 1) if self.noise else x
        return x + self.unfold(self.output(self.blocks(torch.relu(self.stem(self.fold(seen))))))
