"""Whether a GAN in training is healthy: the signals of a step, and the limits that their means must stay within.

GAN training can fail in two ways that it does not recover from. It diverges: losses explode or gradients are not
finite. Or it collapses: the generator draws the same image again and again, or the discriminator wins by so much, or
has died, that neither network learns (Brock et al. 2019, section 4 and appendix H, watch D's loss and go back to
earlier checkpoints for that).

Everything here is a pure function of the means at the log cadence, which are equal on all ranks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster_jobs.training.health_signals import skipped_problem, spread

MIN_SPREAD = 0.01  # of D's scores; its margins are about 1
MIN_ACCURACY = 0.25  # of D in telling a real image from a fake; chance is 0.5


@torch.no_grad()
def signals(images: Tensor, fakes: Tensor, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """The health metrics of a step, from real images and fakes (n, C, H, W) before augmentation and D's scores of both,
    (n,): scalars on the device.

    `diversity/…` is the root of the variance over n images, in the mean over pixels and channels; `diversity/scores`
    that of all scores. `accuracy/d` is the share of pairs of a real image and a fake in which the real one scores
    higher.
    """
    return {
        "diversity/real": spread(images),
        "diversity/fake": spread(fakes),
        "diversity/scores": spread(torch.cat([real, fake])),
        "accuracy/d": (real[:, None] > fake[None]).float().mean(),
    }


@dataclass(frozen=True)
class Limits:
    """The limits of a healthy run; the keys of the same names in `s3gan.training.config` explain them."""

    min_d_loss: float
    max_d_loss: float
    min_diversity: float

    def problem(self, means: Mapping[str, float]) -> str | None:
        """What is wrong, in words; "" for nothing, None where steps that are not finite hide it."""
        if skipped := skipped_problem(means, ("d", "g")):
            return skipped
        loss, real, fake = means["loss/d"], means["diversity/real"], means["diversity/fake"]
        if not all(map(math.isfinite, (loss, real, fake))):
            return None
        if 0 <= loss < self.min_d_loss:  # a Wasserstein loss is negative where D wins, and has no end
            return f"D has won: loss/d {loss:.2g} (min_d_loss={self.min_d_loss:g})"
        if abs(loss) > self.max_d_loss:
            return f"D's loss has exploded: loss/d {loss:.3g} (max_d_loss={self.max_d_loss:g})"
        if means["diversity/scores"] < MIN_SPREAD:
            return f"D gives every image the same score (they spread by {means['diversity/scores']:.1g})"
        if means["accuracy/d"] < MIN_ACCURACY:
            return f"D takes fakes for real: the real image scores higher in {means['accuracy/d']:.0%} of the pairs"
        if fake < self.min_diversity * real:
            return f"fakes vary {fake / real:.2g} times as much as real images (min_diversity={self.min_diversity:g})"
        return ""
