"""Feature map of the self-regularisation loss, ψ: the image, its gradient, its mean colour, or an encoder's features.

SimGAN, section 2.1. Each maps ``(N, C, H, W) float32 in [-1, 1]`` to ``(N, F) float32``, differentiably.
"""

from collections.abc import Callable
from enum import Enum

import torch
from torch import nn

Psi = Callable[[torch.Tensor], torch.Tensor]


class PsiName(Enum):
    """The values of the key ``psi``."""

    identity = "identity"
    gradient = "gradient"
    colour_mean = "colour_mean"
    encoder = "encoder"


def identity(images: torch.Tensor) -> torch.Tensor:
    """The image itself."""
    return images.flatten(1)


def gradient(images: torch.Tensor) -> torch.Tensor:
    """Differences between neighbouring pixels in both directions: keeps edges in place and leaves brightness free."""
    across, down = images.diff(dim=3), images.diff(dim=2)
    return torch.cat([across.flatten(1), down.flatten(1)], 1)


def colour_mean(images: torch.Tensor) -> torch.Tensor:
    """The mean of each channel over the image: keeps the colours and leaves shapes free."""
    return images.mean((2, 3))


NAMED: dict[PsiName, Psi] = {
    PsiName.identity: identity,
    PsiName.gradient: gradient,
    PsiName.colour_mean: colour_mean,
}


def psi_of_encoder(encoder: nn.Module) -> Psi:
    """The features of a frozen encoder; gradients flow through it to the images."""
    frozen = encoder.eval().requires_grad_(False)

    def psi(images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = frozen(images)
        return features.float().flatten(1)

    return psi
