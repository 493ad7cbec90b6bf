"""Signs of divergence that every adversarial training looks for: images that hardly vary, and skipped steps."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

MAX_SKIPPED = 0.5  # share of a network's steps


@torch.no_grad()
def spread(values: Tensor) -> Tensor:
    """The standard deviation over the first axis (n, ...), as the root of the variance averaged over the other axes: a
    scalar on the device."""
    return values.float().var(0, correction=0).mean().sqrt()


def skipped_problem(means: Mapping[str, float], networks: Iterable[str]) -> str:
    """What is wrong, in words, where most steps of a network were skipped as gradients were not finite; "" for nothing.

    Args:
        means: of the metrics; ``skipped/NAME`` is the share of skipped steps of the network NAME.
    """
    for name in networks:
        skipped = means.get(f"skipped/{name}", 0.0)
        if skipped > MAX_SKIPPED:
            return f"{skipped:.0%} of the steps of {name.upper()} had gradients that are not finite"
    return ""
