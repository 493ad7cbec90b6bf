"""Exponential moving average of a generator's weights (Karras et al. 2018; Brock et al. 2019, appendix C)."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


class Ema(Generic[Module]):
    """Holds `average`, a copy of `module` that follows its parameters.

    Until `start_nimg` images the average is the module itself, as an average of early weights only harms. Buffers are
    copied, not averaged: they belong to the module's own weights, and whoever samples from the average recomputes them
    (see `s3gan.inference.loading`). Everything there is to save is the average's state.
    """

    def __init__(self, module: Module, decay: float, start_nimg: int = 0) -> None:
        self.average: Module = copy.deepcopy(module).requires_grad_(False)
        self.decay, self.start_nimg = decay, start_nimg

    @torch.no_grad()
    def update(self, module: nn.Module, nimg: int) -> None:
        """One step towards `module` as it is after `nimg` images."""
        weight = 1 - self.decay if nimg > self.start_nimg else 1.0
        torch._foreach_lerp_(list(self.average.parameters()), list(module.parameters()), weight)
        for held, new in zip(self.average.buffers(), module.buffers(), strict=True):
            held.copy_(new)
