"""Detects a SimGAN run that has diverged: metrics of each step, and limits on their means.

Training can fail in ways from which no later step recovers: gradients are not finite; R collapses to one image whatever
its input; D is so strong that R learns nothing; D has collapsed to one logit for every patch. In these cases the run
is rolled back (``cluster_jobs.training.rollback``). If R changes its input so much that labels may not fit, there is
only a warning: that follows from too small a λ, which other random draws do not change.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cluster_jobs.training.health_signals import skipped_problem, spread

MIN_SPREAD = 1e-3  # standard deviation of D's logits


@torch.no_grad()
def refiner_signals(refined: torch.Tensor, synthetic: torch.Tensor) -> dict[str, torch.Tensor]:
    """Metrics of a step of R from images (n, C, H, W) in [-1, 1]: scalars on the device.

    ``change/pixel`` is the mean |R(x) - x| over pixels, whatever ψ. ``diversity/…`` is the standard deviation over the
    n images: the root of the variance, averaged over pixels and channels.
    """
    return {
        "change/pixel": (refined.float() - synthetic.float()).abs().mean(),
        "diversity/refined": spread(refined),
        "diversity/synthetic": spread(synthetic),
    }


@dataclass(frozen=True)
class RefinerLimits:
    """The limits of a healthy run; the keys of the same names in ``simgan.training.config`` explain them."""

    min_d_loss: float
    min_diversity: float

    def problem(self, means: Mapping[str, float]) -> str | None:
        """What is wrong, in words; "" for nothing, None where the means do not show it.

        They do not show it where they are not finite, or where D was not trained since the previous means.
        """
        if skipped := skipped_problem(means, ("d", "r")):
            return skipped
        if not all(math.isfinite(means.get(name, 0.0)) for name in ("loss/d", "spread/d", "diversity/refined")):
            return None
        if "loss/d" in means and means["loss/d"] < self.min_d_loss:
            return f"D has won: loss/d {means['loss/d']:.2g} (min_d_loss={self.min_d_loss:g})"
        if "spread/d" in means and means["spread/d"] < MIN_SPREAD:
            return f"D gives every patch the same score (they spread by {means['spread/d']:.1g})"
        if "diversity/refined" in means:
            refined, synthetic = means["diversity/refined"], means["diversity/synthetic"]
            if refined < self.min_diversity * synthetic:  # micro-batches of one image have 0 for both
                return (
                    f"refined images vary {refined / synthetic:.2g} times as much as simulated ones "
                    f"(min_diversity={self.min_diversity:g})"
                )
        return None if "loss/adversarial" in means and "loss/d" not in means else ""
