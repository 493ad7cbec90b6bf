"""SimGAN's losses (arXiv:1612.07828, equations 1 to 4), each a pure function that returns one number an image.

One reduction convention, and λ is meant in it alone: the local adversarial terms are *summed over patches*, the
self-regularisation is *summed over pixels and channels* of images in [-1, 1], and their total ``adversarial + λ ·
change`` is averaged over images. Public implementations differ by a factor of 200 in the λ that this makes of their
numbers (a mean over patches or pixels here, a sum over the batch there): too large a λ, and R returns its input; too
small, and R leaves its input behind. :func:`equivalent_weight` converts.
"""

import torch
from torch import nn


def discriminator_loss(refined_logits: torch.Tensor, real_logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Equation 2: cross entropy with refined = 1 and real = 0; (N, h, w) logits each to (N,) sums over patches each."""
    softplus = nn.functional.softplus
    return softplus(-refined_logits.float()).sum((1, 2)), softplus(real_logits.float()).sum((1, 2))


def adversarial_loss(refined_logits: torch.Tensor) -> torch.Tensor:
    """Equation 4, first term: -log(1 - D) of each patch, (N, h, w) logits to (N,) float32 sums over patches."""
    return nn.functional.softplus(refined_logits.float()).sum((1, 2))


def self_regularisation(refined: torch.Tensor, synthetic: torch.Tensor) -> torch.Tensor:
    """Equation 4, second term, ψ = identity: ‖R(x) - x‖₁ of (N, C, H, W) in [-1, 1] to (N,) sums over pixels."""
    return (refined.float() - synthetic.float()).abs().sum((1, 2, 3))


def equivalent_weight(
    weight: float, *, patches: int, pixels: int, adversarial: str, change: str, batch: int = 1
) -> float:
    """The λ of this module's convention for a ``weight`` from code that reduces its two terms otherwise.

    Args:
        adversarial: how that code reduces its adversarial term over the patches of an image: ``"sum"`` or ``"mean"``.
        change: how it reduces ‖R(x) - x‖₁: ``"sum"`` over pixels, ``"mean"`` over pixels, or ``"batch_sum"`` over the
            pixels of the whole batch of ``batch`` images while the adversarial term is averaged over images.
    """
    if adversarial not in ("sum", "mean") or change not in ("sum", "mean", "batch_sum"):
        raise ValueError(f"adversarial={adversarial!r}, change={change!r}: expected sum|mean and sum|mean|batch_sum")
    weight *= {"sum": 1.0, "mean": 1 / pixels, "batch_sum": float(batch)}[change]
    return weight * (patches if adversarial == "mean" else 1)
