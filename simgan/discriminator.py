"""The local discriminator D: fully convolutional, one verdict a patch instead of one an image (SimGAN, section 2.3)."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Conv:
    """A convolution with padding ``kernel // 2``, then ReLU."""

    width: int
    kernel: int
    stride: int = 1


@dataclass(frozen=True)
class Pool:
    """A maximum over ``kernel`` × ``kernel`` pixels with padding ``kernel // 2``."""

    kernel: int
    stride: int = 1


LAYERS: dict[str, tuple[Conv | Pool, ...]] = {
    # The paper's gaze network: 35×55 pixels give 9×14 = 126 patches that see 23 pixels each; 32×32 give 8×8 = 64.
    "gaze": (Conv(96, 3, 2), Conv(64, 3, 2), Pool(3), Conv(32, 3), Conv(32, 1)),
    # The paper's hand network: 224×224 pixels give 7×7 = 49 patches that see 71 pixels each.
    "hand": (Conv(96, 7, 4), Conv(64, 5, 2), Pool(3, 2), Conv(32, 3, 2), Conv(32, 1)),
}


class PatchDiscriminator(nn.Module):
    """``(N, C, H, W) float32 in [-1, 1]`` to logits ``(N, h, w)``, one a local patch; positive says *refined*.

    The paper ends in two maps and a softmax. A softmax over two classes depends on the difference of its logits alone,
    so one map of that difference with a sigmoid is the same family of functions.
    """

    def __init__(self, channels: int, layers: str) -> None:
        super().__init__()
        body: list[nn.Module] = []
        width = channels
        for layer in LAYERS[layers]:
            if isinstance(layer, Pool):
                body.append(nn.MaxPool2d(layer.kernel, layer.stride, padding=layer.kernel // 2))
                continue
            convolution = nn.Conv2d(width, layer.width, layer.kernel, layer.stride, padding=layer.kernel // 2)
            body += [convolution, nn.ReLU()]
            width = layer.width
        self.body = nn.Sequential(*body)
        self.verdict = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.verdict(self.body(x))[:, 0]


def receptive_field(layers: str) -> int:
    """The side in pixels of what one patch of D sees."""
    side, jump = 1, 1
    for layer in LAYERS[layers]:
        side += (layer.kernel - 1) * jump
        jump *= layer.stride
    return side
