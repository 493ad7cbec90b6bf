"""Exponential moving averages of weights (Karras et al. 2018; Brock et al. 2019, appendix C)."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def half_life_decay(nimg: int, half_life_nimg: float) -> float:
    """The decay of an average over `nimg` images, where it halves every `half_life_nimg` images."""
    return 0.5 ** (nimg / half_life_nimg)


class Ema(Generic[Module]):
    """Holds `average`, the moving average of a module's parameters. Its state is all that a checkpoint needs.

    Args:
        buffers: whether floating-point buffers (batch statistics) are averaged like parameters. Otherwise they are
            copied: they fit the module's own weights, and have to be recomputed before the average is used. Integer
            buffers are copied either way.
    """

    def __init__(self, module: Module, *, buffers: bool = False) -> None:
        self.average: Module = copy.deepcopy(module).requires_grad_(False)
        self._averages_buffers = buffers

    @torch.no_grad()
    def update(self, module: nn.Module, decay: float) -> None:
        """One step towards `module`: average ← decay · average + (1 - decay) · module. A decay of 0 copies it."""
        averaged: list[Tensor] = list(self.average.parameters())
        followed: list[Tensor] = list(module.parameters())
        for held, new in zip(self.average.buffers(), module.buffers(), strict=True):
            if self._averages_buffers and held.is_floating_point():
                averaged.append(held)
                followed.append(new)
            else:
                held.copy_(new)
        torch._foreach_lerp_(averaged, followed, 1 - decay)
