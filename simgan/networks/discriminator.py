"""The discriminator D: fully convolutional, one logit per patch (SimGAN, section 2.3); one per image as an ablation."""

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
    """``(N, C, H, W) float32 in [-1, 1]`` to logits ``(N, h, w)``, one per patch; positive means *refined*.

    The paper ends in two maps and a softmax. A softmax over two classes depends on the difference of its logits alone,
    so one map of that difference with a sigmoid is the same family of functions.
    """

    def __init__(self, channels: int, layers: str) -> None:
        super().__init__()
        self.body, width = _body(channels, layers)
        self.verdict = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.verdict(self.body(x))[:, 0]


class ImageDiscriminator(nn.Module):
    """``(N, C, H, W) float32 in [-1, 1]`` to logits ``(N, 1, 1)``, one for the whole image, by a fully connected layer.

    The paper's ablation. Its single logit counts once in the adversarial term, where the patch discriminator's logits
    count once per patch, so the same balance needs λ divided by the number of patches.

    Args:
        size: (height, width) of the images.
    """

    def __init__(self, channels: int, layers: str, size: tuple[int, int]) -> None:
        super().__init__()
        self.body, width = _body(channels, layers)
        height, breadth = patches(layers, size)
        self.verdict = nn.Linear(width * height * breadth, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.verdict(self.body(x).flatten(1))[:, :, None]


def _body(channels: int, layers: str) -> tuple[nn.Sequential, int]:
    """The layers below the output layer, and their number of feature maps."""
    body: list[nn.Module] = []
    width = channels
    for layer in LAYERS[layers]:
        if isinstance(layer, Pool):
            body.append(nn.MaxPool2d(layer.kernel, layer.stride, padding=layer.kernel // 2))
            continue
        convolution = nn.Conv2d(width, layer.width, layer.kernel, layer.stride, padding=layer.kernel // 2)
        body += [convolution, nn.ReLU()]
        width = layer.width
    return nn.Sequential(*body), width


def patches(layers: str, size: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of local patches in images of ``size`` (height, width): every stride rounds up."""
    rows, columns = size
    for layer in LAYERS[layers]:
        rows, columns = (-(-side // layer.stride) for side in (rows, columns))
    return rows, columns


def receptive_field(layers: str) -> int:
    """The side in pixels of the input that one logit of D depends on."""
    side, jump = 1, 1
    for layer in LAYERS[layers]:
        side += (layer.kernel - 1) * jump
        jump *= layer.stride
    return side
