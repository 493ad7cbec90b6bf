"""Adversarial and rotation losses as pure functions of one sample: every result is (N,), the caller takes the mean."""

import torch
from torch import Tensor
from torch.nn import functional as F


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """Discriminator's hinge loss of N real and N fake scores (Lim & Ye 2017; Miyato et al. 2018, equation 16): (N,)."""
    return F.relu(1 - real) + F.relu(1 + fake)


def hinge_g(fake: Tensor) -> Tensor:
    """Generator's hinge loss of N fake scores (Miyato et al. 2018, equation 17): (N,)."""
    return -fake


def rotation_loss(logits: Tensor, turns: Tensor) -> Tensor:
    """Cross-entropy of quarter turns (Chen et al. 2019, equation 4): logits (N, 4), turns (N,) int64 -> (N,)."""
    return F.cross_entropy(logits.float(), turns, reduction="none")


def prediction_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of classes (Lucic et al. 2019, section 3.2): logits (N, C), target weights (N, C) -> (N,)."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def quarter_turns(images: Tensor) -> Tensor:
    """Copies of images (n, C, S, S) turned by 90, 180 and 270 degrees, one block after the other: (3n, C, S, S)."""
    return torch.cat([images.rot90(turn, (2, 3)) for turn in (1, 2, 3)])
