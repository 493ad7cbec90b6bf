"""SimGAN's losses (arXiv:1612.07828, equations 1 to 4), each a pure function that returns one number per image.

The value of λ depends on how the two terms are reduced. Here adversarial terms are *summed over patches*, the
self-regularisation ``change`` is *summed over pixels and channels* of images in [-1, 1], and their total
``adversarial + λ · change`` is averaged over images. For a ψ other than the identity, the change is the *mean over ψ's
entries times the number of values in the image*, which equals the sum for the identity, so that λ keeps its order of
magnitude.

R is the refiner, D the discriminator, λ the weight of self-regularisation and ψ its feature map (`psi.py`).

With too large a λ R returns its input; with too small a one R changes the input until labels do not fit. Converted to
this convention, the λ of public implementations differ by a factor of 200; ``published_lambda.py`` converts them.
"""

import torch
from torch import nn

from simgan.training.psi import Psi, identity


def discriminator_loss(refined_logits: torch.Tensor, real_logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Equation 2: cross entropy with refined = 1 and real = 0; (N, h, w) logits each to (N,) sums over patches each."""
    softplus = nn.functional.softplus
    return softplus(-refined_logits.float()).sum((1, 2)), softplus(real_logits.float()).sum((1, 2))


def adversarial_loss(refined_logits: torch.Tensor) -> torch.Tensor:
    """Equation 4, first term: -log(1 - D) of each patch, (N, h, w) logits to (N,) float32 sums over patches."""
    return nn.functional.softplus(refined_logits.float()).sum((1, 2))


def self_regularisation(refined: torch.Tensor, synthetic: torch.Tensor, psi: Psi = identity) -> torch.Tensor:
    """Equation 4, second term: ‖ψ(R(x)) - ψ(x)‖₁ of (N, C, H, W) in [-1, 1] to (N,), as reduced above."""
    if psi is identity:
        return (refined.float() - synthetic.float()).abs().sum((1, 2, 3))
    with torch.no_grad():
        wanted = psi(synthetic.float())
    return (psi(refined.float()) - wanted).abs().mean(1) * synthetic[0].numel()
