"""Adversarial losses as pure functions of one sample: every result is (N,), the caller takes the mean.

A score is what the discriminator says before any sigmoid; positive is real. σ is the sigmoid, and -log σ(s) is written
softplus(-s), which neither overflows nor loses digits. Nothing is cast: the caller hands in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from torch import Tensor
from torch.nn import functional as F


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """Discriminator's hinge loss of N real and N fake scores (Lim & Ye 2017; Miyato et al. 2018, equation 16): (N,)."""
    return F.relu(1 - real) + F.relu(1 + fake)


def hinge_g(fake: Tensor) -> Tensor:
    """Generator's hinge loss of N fake scores (Miyato et al. 2018, equation 17): (N,)."""
    return -fake


def cross_entropy_d(real: Tensor, fake: Tensor) -> Tensor:
    """-log σ(real) - log(1 - σ(fake)): the discriminator's side of Goodfellow et al. 2014, equation 1. (N,)."""
    return F.softplus(-real) + F.softplus(fake)


def minimax_g(fake: Tensor) -> Tensor:
    """log(1 - σ(fake)): the generator's side of equation 1. Its gradient dies where D is sure. (N,)."""
    return -F.softplus(fake)


def non_saturating_g(fake: Tensor) -> Tensor:
    """-log σ(fake): the remedy in section 3 of Goodfellow et al. 2014, strongest where D is sure of a fake. (N,)."""
    return F.softplus(-fake)


def least_squares_d(real: Tensor, fake: Tensor) -> Tensor:
    """½(real - b)² + ½(fake - a)² with a = -1, b = 1 (Mao et al. 2017, equations 2 and 8): (N,).

    Their other coding, a = 0 and b = c = 1 (equation 9), would draw the line between real and fake at ½ instead of 0.
    """
    return 0.5 * (real - 1).square() + 0.5 * (fake + 1).square()


def least_squares_g(fake: Tensor) -> Tensor:
    """½(fake - c)² with c = 0 (Mao et al. 2017, equations 2 and 8): fakes are drawn to the line. (N,)."""
    return 0.5 * fake.square()


def wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    """fake - real (Arjovsky et al. 2017, equation 2, negated): unbounded, unless something keeps D Lipschitz. (N,).

    That is spectral normalisation, or `s3gan.losses.penalties.gradient_penalty` (WGAN-GP).
    """
    return fake - real


def wasserstein_g(fake: Tensor) -> Tensor:
    """-fake (Arjovsky et al. 2017, theorem 3): (N,)."""
    return -fake


def relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """-log σ(real - fake) of pairs (Jolicoeur-Martineau 2019; Huang et al. 2024, R3GAN, with f = softplus): (N,).

    R3GAN adds `s3gan.losses.penalties.squared_gradient` of real images (R1) and of fakes (R2).
    """
    return F.softplus(fake - real)


def relativistic_g(fake: Tensor, real: Tensor | None) -> Tensor:
    """-log σ(fake - real) of pairs, of which the real score is a constant to the generator (ibid.): (N,)."""
    assert real is not None, "this loss compares fakes with real images"
    return F.softplus(real - fake)


Generator = Callable[[Tensor, Tensor | None], Tensor]


def _fakes_alone(loss: Callable[[Tensor], Tensor]) -> Generator:
    """A generator's loss of fakes, called like one of pairs."""

    def generator(fake: Tensor, real: Tensor | None) -> Tensor:
        return loss(fake)

    return generator


@dataclass(frozen=True)
class AdversarialLoss:
    """The two players' losses. Both map scores to (N,), the loss of each sample or pair."""

    name: str
    discriminator: Callable[[Tensor, Tensor], Tensor]  # (real (N,), fake (N,))
    generator: Generator  # (fake (N,), real (N,) or None)
    paired: bool = False  # the generator's loss needs the scores of N real images
    absolute: bool = True  # the sign of a score alone says whether D takes an image for real


# `logistic` is `non_saturating` by the name that StyleGAN's papers and code call it (Karras et al. 2019), where R1 goes
# with it. `minimax` has the same discriminator and a generator that saturates.
LOSSES: dict[str, AdversarialLoss] = {
    loss.name: loss
    for loss in (
        AdversarialLoss("hinge", hinge_d, _fakes_alone(hinge_g)),
        AdversarialLoss("minimax", cross_entropy_d, _fakes_alone(minimax_g)),
        AdversarialLoss("non_saturating", cross_entropy_d, _fakes_alone(non_saturating_g)),
        AdversarialLoss("logistic", cross_entropy_d, _fakes_alone(non_saturating_g)),
        AdversarialLoss("least_squares", least_squares_d, _fakes_alone(least_squares_g)),
        AdversarialLoss("wasserstein", wasserstein_d, _fakes_alone(wasserstein_g), absolute=False),
        AdversarialLoss("relativistic", relativistic_d, relativistic_g, paired=True, absolute=False),
    )
}


LossName = Enum("LossName", {name: name for name in LOSSES})  # type: ignore[misc]  # the values of the key `loss`
