"""The refiner R: a ResNet at full resolution, without stride or pooling (SimGAN, arXiv:1612.07828, section 2.2)."""

import torch
from torch import nn


class Block(nn.Module):
    """Two 3×3 convolutions around a skip connection; the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


SKIP = 2.0  # tanh(2) = 0.96


class Refiner(nn.Module):
    """``(N, C, H, W) float32 in [-1, 1]`` to the same: conv to ``width`` maps, residual blocks, conv1×1, tanh.

    The paper's networks: gaze has width 64, four blocks and a 3×3 stem; hand pose ten blocks and a 7×7 stem. Here the
    input is added once more before the tanh and the last layer begins at zero, so that R is close to the identity from
    its first step. Without that, self-regularisation alone drives R into the constant image of the background (the
    median is what minimises ‖R(x) - x‖₁), where the tanh is saturated and R can stay for ever.

    Args:
        fold: 1 is the paper. Above, every ``fold`` × ``fold`` pixels become channels and come apart again at the end:
            R sees ``fold`` times as far for 1 / ``fold``² of the work. For a domain gap wider than a few pixels (a
            whole stroke that is blurred, say) in images without detail at the pixel.
    """

    def __init__(self, channels: int, *, width: int, blocks: int, stem: int = 3, fold: int = 1) -> None:
        super().__init__()
        self.fold = nn.PixelUnshuffle(fold)
        self.stem = nn.Conv2d(channels * fold**2, width, stem, padding=stem // 2)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.output = nn.Conv2d(width, channels * fold**2, 1)
        self.unfold = nn.PixelShuffle(fold)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        change = self.unfold(self.output(self.blocks(torch.relu(self.stem(self.fold(x))))))
        return torch.tanh(SKIP * x + change)
