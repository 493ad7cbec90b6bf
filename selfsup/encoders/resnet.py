"""Residual encoders by name, built from a table of blocks.

He et al. 2015 (basic blocks) and 2016 (pre-activated bottlenecks), with a 3x3 stem without stride, because 32 px are
few. Only the compact ones (resnet8, resnet14) have a stem with stride 2, so that a CPU trains them in minutes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.seeds import generator
from cluster_jobs.distributed.batchnorm import BatchNorm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2015, figure 2)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride)
        self.norm1 = BatchNorm(width)
        self.conv2 = _conv(width, width, 3)
        self.norm2 = BatchNorm(width)
        same = stride == 1 and inputs == width
        self.shortcut = nn.Identity() if same else nn.Sequential(_conv(inputs, width, 1, stride), BatchNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(h)) + self.shortcut(x))


class PreactivatedBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each after its norm and ReLU (He et al. 2016, figure 1b)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.norm1 = BatchNorm(inputs)
        self.conv1 = _conv(inputs, width, 1)
        self.norm2 = BatchNorm(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.norm3 = BatchNorm(width)
        self.conv3 = _conv(width, outputs, 1)
        self.shortcut = None if stride == 1 and inputs == outputs else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(h)
        h = self.conv2(F.relu(self.norm2(self.conv1(h))))
        return shortcut + self.conv3(F.relu(self.norm3(h)))


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


@dataclass(frozen=True)
class EncoderArchitecture:
    """Stage s has ``depths[s]`` blocks of width ``width * 2**s``; all stages but the first halve the resolution."""

    block: type[BasicBlock] | type[PreactivatedBottleneck]
    depths: tuple[int, ...]
    stem_stride: int


ARCHITECTURES = {
    "resnet8": EncoderArchitecture(BasicBlock, (1, 1, 1), stem_stride=2),
    "resnet14": EncoderArchitecture(BasicBlock, (2, 2, 2), stem_stride=2),
    "resnet18": EncoderArchitecture(BasicBlock, (2, 2, 2, 2), stem_stride=1),
    "resnet50v2": EncoderArchitecture(PreactivatedBottleneck, (3, 4, 6, 3), stem_stride=1),
}


class Encoder(nn.Module):
    """A residual network without a classifier: features are its average-pooled maps. Images have 8 px or more."""

    def __init__(self, name: str, channels: int, width: int) -> None:
        super().__init__()
        self.name, self.channels, self.width = name, channels, width
        table = ARCHITECTURES[name]
        preactivated = table.block is PreactivatedBottleneck
        self.stem = _conv(channels, width, 3, table.stem_stride)
        self.stem_norm = nn.Identity() if preactivated else nn.Sequential(BatchNorm(width), nn.ReLU())
        blocks, features = [], width
        for stage, depth in enumerate(table.depths):
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(table.block(features, width * 2**stage, stride))
                features = width * 2**stage * table.block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.last_norm = nn.Sequential(BatchNorm(features), nn.ReLU()) if preactivated else nn.Identity()
        self.num_features = features

    def maps(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32 in [-1, 1] -> the maps before the pooling, (N, num_features, h, w)."""
        return self.last_norm(self.blocks(self.stem_norm(self.stem(x))))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32 in [-1, 1] -> (N, num_features)."""
        return self.maps(x).mean((2, 3))


def build_encoder(name: str, channels: int, width: int = 32, *, seed: int = 0) -> Encoder:
    """A freshly initialised encoder.

    Raises:
        UserError: an unknown name.
    """
    if name not in ARCHITECTURES:
        raise UserError(f"encoder {name!r}: expected one of {', '.join(ARCHITECTURES)}")
    if width < 1:
        raise UserError(f"width={width}: expected a positive number of channels")
    encoder = Encoder(name, channels, width)
    initialise(encoder, seed, "encoder")
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the faster layout of convolutions
    return encoder


def initialise(module: nn.Module, *key: int | str) -> None:
    """Initialises convolutions (He et al. 2015) and linear layers; the seed of each contains its name."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Conv2d | nn.Linear):
            draw = generator("cpu", *key, name)
            if isinstance(child, nn.Conv2d):
                nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu", generator=draw)
            else:
                nn.init.normal_(child.weight, std=0.01, generator=draw)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
