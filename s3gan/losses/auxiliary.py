"""Losses of the discriminator's auxiliary heads as pure functions: (N,), one number per sample; the caller averages."""

import torch
from torch import Tensor
from torch.nn import functional as F


def rotation_loss(logits: Tensor, turns: Tensor) -> Tensor:
    """Cross-entropy of quarter turns (Chen et al. 2019, equation 4): logits (N, 4), turns (N,) int64 -> (N,)."""
    return F.cross_entropy(logits.float(), turns, reduction="none")


def prediction_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of classes (Lucic et al. 2019, section 3.2): logits (N, C), target weights (N, C) -> (N,)."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def quarter_turns(images: Tensor) -> Tensor:
    """Copies of images (n, C, S, S) turned by 90, 180 and 270 degrees, one block after the other: (3n, C, S, S)."""
    return torch.cat([images.rot90(turn, (2, 3)) for turn in (1, 2, 3)])
