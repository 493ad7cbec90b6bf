"""The refiner R: a ResNet at full resolution, without stride or pooling (SimGAN, arXiv:1612.07828, section 2.2)."""

import torch
from torch import nn

from simgan.networks.image_noise import image_noise


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions around a skip connection; the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def receptive_field(*, blocks: int, stem: int = 3, fold: int = 1) -> int:
    """The side in pixels of what one pixel of R's output depends on; up to fold - 1 fewer by its place in the fold."""
    return fold * (stem + 4 * blocks)


class Refiner(nn.Module):
    """``(N, C, H, W) float32 in [-1, 1]`` to about the same: conv to ``width`` maps, residual blocks, conv1×1.

    The paper's networks: gaze has width 64, four blocks and a 3×3 stem; hand pose ten blocks and a 7×7 stem. Here the
    last layer draws a change that is added to the input, begins at zero and has no tanh, so R begins as the identity.
    With a tanh, self-regularisation alone can drive R into the constant image of the background (the median is what
    minimises ‖R(x) - x‖₁), where the tanh is saturated and R stays for ever; so can a D that is too strong. Values
    beyond [-1, 1] are for D to refuse; they are cut off when images are written.

    Args:
        fold: 1 is the paper. Above, every ``fold`` × ``fold`` pixels become channels and come apart again at the end:
            R sees ``fold`` times as far for 1 / ``fold``² of the work. For a domain gap wider than a few pixels (a
            whole stroke that is blurred, say) in images without detail at the pixel.
        noise: 0 is the paper. Above, R sees as many channels of noise beside the picture (``image_noise``): pictures
            drawn without any leave R nothing to make a sensor's noise of.
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
