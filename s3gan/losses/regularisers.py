"""Regularisers of the discriminator as objects: from images and the scores that D gave them to (n,) penalties.

The functions are those of `s3gan.losses.penalties`; this file supplies their inputs and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from s3gan.augmentation.flip_and_shift import consistency_transform
from s3gan.losses.penalties import (
    ScoreAverages,
    consistency,
    gradient_penalty,
    input_gradient,
    interpolate,
    lecam,
    squared_gradient,
)


@dataclass(frozen=True)
class ScoredImages:
    """A micro-batch that D has scored (after augmentation): n real images, n fakes, and perhaps more images."""

    real: Tensor  # (n, C, H, W)
    fake: Tensor
    conditions: Tensor  # of the real images, as `s3gan.networks.Heads` takes them
    images: Tensor  # (2n + m, C, H, W) as one input, real images and fakes first
    scores: Tensor  # (2n + m,)
    score: Callable[[Tensor, Tensor], Tensor]  # (images, conditions) -> scores (n,): another pass of D

    @cached_property
    def gradients(self) -> Tensor:
        """Of the scores by the images: (2n + m, C, H, W). Only where a regulariser says that it needs them."""
        return input_gradient(self.scores[: 2 * len(self.real)], self.images)


class Regulariser(Protocol):
    """One summand of the discriminator's loss."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float: ...

    @property
    def draws(self) -> int:
        """Uniform numbers that it consumes for each image."""
        ...

    @property
    def needs_gradients(self) -> bool: ...

    def __call__(self, scored: ScoredImages, noise: Tensor) -> Tensor:
        """(n,), to be averaged and weighed; noise (n, draws) is uniform in [0, 1)."""
        ...


@dataclass(frozen=True)
class SquaredGradient:
    """R1 at the real images, R2 at the fakes (Mescheder et al. 2018)."""

    name: str
    weight: float
    side: int  # 0 real, 1 fake
    draws: int = 0
    needs_gradients: bool = True

    def __call__(self, scored: ScoredImages, noise: Tensor) -> Tensor:
        n = len(scored.real)
        return squared_gradient(scored.gradients[self.side * n : (self.side + 1) * n])


@dataclass(frozen=True)
class GradientPenalty:
    """WGAN-GP (Gulrajani et al. 2017) between pairs of real images and fakes, under the real images' conditions."""

    weight: float
    name: str = "gradient_penalty"
    draws: int = 1
    needs_gradients: bool = False

    def __call__(self, scored: ScoredImages, noise: Tensor) -> Tensor:
        between = interpolate(scored.real.detach(), scored.fake.detach(), noise[:, 0]).requires_grad_()
        return gradient_penalty(input_gradient(scored.score(between, scored.conditions), between))


@dataclass(frozen=True)
class LeCam:
    """Keeps scores near the other side's average (Tseng et al. 2021); nothing until there is an average."""

    weight: float
    averages: ScoreAverages
    name: str = "lecam"
    draws: int = 0
    needs_gradients: bool = False

    def __call__(self, scored: ScoredImages, noise: Tensor) -> Tensor:
        (real, fake), averages = scored.scores[: 2 * len(scored.real)].chunk(2), self.averages
        return lecam(real, fake, averages.real, averages.fake) * (averages.weight > 0)


@dataclass(frozen=True)
class Consistency:
    """A mirrored and shifted real image should score as the image itself (Zhang et al. 2020)."""

    weight: float
    name: str = "consistency"
    draws: int = consistency_transform.draws
    needs_gradients: bool = False

    def __call__(self, scored: ScoredImages, noise: Tensor) -> Tensor:
        changed = consistency_transform(scored.real.detach(), noise)
        return consistency(scored.scores[: len(scored.real)], scored.score(changed, scored.conditions))


def penalise(
    regularisers: Sequence[Regulariser], scored: ScoredImages, noise: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the mean penalties, and each mean by its name.

    noise (n, columns) is uniform in [0, 1): the regularisers take their columns from the left.
    """
    total, means = noise.new_zeros(()), {}
    for regulariser in regularisers:
        own, noise = noise.split([regulariser.draws, noise.shape[1] - regulariser.draws], dim=1)
        means[f"penalty/{regulariser.name}"] = mean = regulariser(scored, own).mean()
        total = total + regulariser.weight * mean
    return total, means
