"""Whether a SimGAN in training is well: signals that a step leaves, what is wrong with their means, and what is told.

It ends badly in ways that no later step mends. Gradients are not finite. R draws one image whatever comes in. D wins by
so much that R learns nothing, or has died: a head of 1×1 convolutions may lock into one verdict for every patch. From
these a run is taken back (``cluster_jobs.training.rollback``). That R leaves its input behind, and the labels with it,
is told and no more: no other draws would change what too small a λ asks for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

MOST_SKIPPED = 0.5  # of a player's steps
LEAST_SPREAD = 1e-3  # of D's logits


@torch.no_grad()
def refiner_signals(refined: torch.Tensor, synthetic: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a step of R tells, from images (n, C, H, W) in [-1, 1]: scalars on the device.

    ``change/pixel`` is the mean |R(x) - x| of a pixel, whatever ψ; ``diversity/…`` the root of the variance over n
    images, in the mean over pixels and channels.
    """
    return {
        "change/pixel": (refined.float() - synthetic.float()).abs().mean(),
        "diversity/refined": _spread(refined),
        "diversity/synthetic": _spread(synthetic),
    }


def _spread(values: torch.Tensor) -> torch.Tensor:
    return values.float().var(0, correction=0).mean().sqrt()


@dataclass(frozen=True)
class RefinerLimits:
    """Where a run is no longer well: ``simgan.training.config`` says what the numbers limit."""

    min_d_loss: float
    min_diversity: float

    def problem(self, means: Mapping[str, float]) -> str | None:
        """What is wrong, in words; "" for nothing, None where the means cannot tell: steps that are not finite hide it,
        or D has not played against R since the means before these."""
        for player in ("d", "r"):
            skipped = means.get(f"skipped/{player}", 0.0)
            if skipped > MOST_SKIPPED:
                return f"{skipped:.0%} of the steps of {player.upper()} had gradients that are not finite"
        if not all(math.isfinite(means.get(name, 0.0)) for name in ("loss/d", "spread/d", "diversity/refined")):
            return None
        if "loss/d" in means and means["loss/d"] < self.min_d_loss:
            return f"D has won: loss/d {means['loss/d']:.2g} (min_d_loss={self.min_d_loss:g})"
        if "spread/d" in means and means["spread/d"] < LEAST_SPREAD:
            return f"D gives every patch the same score (they spread by {means['spread/d']:.1g})"
        if "diversity/refined" in means:
            refined, synthetic = means["diversity/refined"], means["diversity/synthetic"]
            if refined < self.min_diversity * synthetic:  # never so where a micro-batch is one image: both are 0
                return (
                    f"refined images vary {refined / synthetic:.2g} times as much as simulated ones "
                    f"(min_diversity={self.min_diversity:g})"
                )
        return None if "loss/adversarial" in means and "loss/d" not in means else ""
