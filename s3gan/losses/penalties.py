"""Penalties as pure functions: (N,), one number per sample, or a scalar for weights; the caller averages and weighs.

Gradient penalties ask how fast a score changes with its image, so they need the gradient first::

    images.requires_grad_()
    penalty = squared_gradient(input_gradient(discriminate(images), images)).mean()  # R1, to be weighted with γ

A weight belongs to the scale of the images, here [-1, 1]: the same γ for images in [0, 1] is four times as strict.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def input_gradient(scores: Tensor, images: Tensor) -> Tensor:
    """∇ of each score (N,) by its own image (N, C, H, W), which can be differentiated again: (N, C, H, W).

    A score must depend on no other image of the batch: no batch norm in the discriminator. The images require a
    gradient before they are scored. Through an augmentation, or not: take the images before it, or those after it.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient


def squared_gradient(gradient: Tensor) -> Tensor:
    """½‖∇‖² of gradients (N, ...): (N,). At real images R1, at fakes R2 (Mescheder et al. 2018, equations 9 and 10).

    The half is in here: a weight of γ is their γ/2 · E‖∇‖².
    """
    return 0.5 * gradient.flatten(1).square().sum(1)


def gradient_penalty(gradient: Tensor) -> Tensor:
    """(‖∇‖ - 1)² of gradients (N, ...) at interpolated images (Gulrajani et al. 2017, equation 3; weight 10): (N,)."""
    return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1).square()


def interpolate(real: Tensor, fake: Tensor, u: Tensor) -> Tensor:
    """u · real + (1 - u) · fake of images (N, C, H, W), with u (N,) uniform in [0, 1) (ibid., Algorithm 1)."""
    u = u[:, None, None, None].to(real.dtype)
    return u * real + (1 - u) * fake


def lecam(real: Tensor, fake: Tensor, real_average: Tensor, fake_average: Tensor) -> Tensor:
    """Keeps scores (N,) near what the other side has had on average, scalars (Tseng et al. 2021, equation 4): (N,).

    (real - fake_average)₊² + (real_average - fake)₊². The equation has no positive part; the authors' code does, and
    they say why: early on fakes may score above real images, and there the penalty would push the wrong way.
    """
    return F.relu(real - fake_average).square() + F.relu(real_average - fake).square()


class ScoreAverages(nn.Module):
    """Exponential averages of the mean scores of real images and of fakes, for `lecam`. No values before an update.

    The averages are unbiased from the first update on, as in the authors' TensorFlow code: the weights of what has been
    seen are divided by their sum. All state is in buffers; nothing waits for the device.
    """

    real: Tensor
    fake: Tensor
    weight: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))  # 1 - decay^updates

    @torch.no_grad()
    def update(self, real_mean: Tensor, fake_mean: Tensor) -> None:
        """Takes in the mean scores (scalars) of one discriminator step, over all ranks.

        Means that are not finite are ignored, like the step that they come from.
        """
        finite = real_mean.isfinite() & fake_mean.isfinite()
        weight = torch.lerp(torch.ones_like(self.weight), self.weight, self.decay)
        for average, mean in ((self.real, real_mean), (self.fake, fake_mean)):
            moved = torch.lerp(average, mean.to(average.dtype), (1 - self.decay) / weight)
            average.copy_(torch.where(finite, moved, average))
        self.weight.copy_(torch.where(finite, weight, self.weight))


def consistency(score: Tensor, augmented_score: Tensor) -> Tensor:
    """(D(x) - D(T(x)))² of scores (N,) before and after a transform that keeps the meaning (Zhang et al. 2020): (N,).

    Equation 2, which is equation 1 on the last layer alone; weight 10. T is
    `s3gan.augmentation.flip_and_shift.consistency_transform`.
    """
    return (score - augmented_score).square()


def orthogonality(weight: Tensor) -> Tensor:
    """‖W Wᵀ ⊙ (1 - I)‖² with the filters of a weight (out, ...) as rows of W: a scalar.

    Brock et al. 2019, equation 3, where filters are columns; weight 1e-4. It penalises what filters share, not their
    lengths. The authors' PyTorch code adds only half of this gradient.
    """
    with torch.autocast(weight.device.type, enabled=False):
        filters = weight.flatten(1)
        if len(filters) <= filters.shape[1]:
            products = filters @ filters.t()
            return (products - torch.diag(products.diagonal())).square().sum()
        # ‖W Wᵀ‖ = ‖Wᵀ W‖, and this one is small. With more filters than dimensions the difference is far from zero.
        return (filters.t() @ filters).square().sum() - filters.square().sum(1).square().sum()


def orthogonality_of(module: nn.Module) -> Tensor:
    """The sum of `orthogonality` over convolutions and linear layers, of weights before any spectral norm: a scalar.

    The paper regularises the generator. Its class embedding is left out, as in the authors' code: there is no reason
    why classes should have nothing in common.
    """
    layers = (layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear))
    return torch.stack([orthogonality(_filters(layer)) for layer in layers]).sum()


def _filters(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> Tensor:
    """The weight as (out, ...)."""
    return layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
