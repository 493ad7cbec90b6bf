"""One step of the refiner and one of the discriminator, over any number of ranks, without waiting for the device."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from cluster_jobs.optimise import update
from simgan.discriminator import PatchDiscriminator
from simgan.history import History
from simgan.losses import adversarial_loss, discriminator_loss, self_regularisation
from simgan.refiner import Refiner

Metrics = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Game:
    """The two players and the rules. ``prepared_*`` are the modules as the run wraps them; alone they are the same.

    ``regularisation`` is λ in the convention of ``losses.py``. ``gather`` joins the ranks' tensors in rank order.
    """

    refiner: Refiner
    discriminator: PatchDiscriminator
    prepared_refiner: nn.Module
    prepared_discriminator: nn.Module
    optimizer_r: torch.optim.Optimizer
    optimizer_d: torch.optim.Optimizer
    history: History
    regularisation: float
    rank: int = 0
    gather: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor
    autocast: Callable[[], AbstractContextManager] = nullcontext


def refiner_step(game: Game, synthetic: torch.Tensor, *, adversarial: bool) -> Metrics:
    """Updates R on synthetic images (n, C, H, W) in [-1, 1]; without ``adversarial`` on self-regularisation alone."""
    refined = game.prepared_refiner(synthetic)
    change = self_regularisation(refined, synthetic).mean()
    loss = game.regularisation * change
    metrics = {"loss/change": change}
    if adversarial:
        game.discriminator.requires_grad_(False)  # its gradients are neither needed nor averaged
        with game.autocast():
            logits = game.discriminator(refined)
        game.discriminator.requires_grad_(True)
        metrics["loss/adversarial"] = adversarial_loss(logits).mean()
        loss = loss + metrics["loss/adversarial"]
    metrics["skipped/r"] = update(game.optimizer_r, loss)
    return {name: value.detach() for name, value in metrics.items()}


def discriminator_step(game: Game, synthetic: torch.Tensor, real: torch.Tensor, step: int) -> Metrics:
    """Updates D on real images (n, C, H, W) in [-1, 1] and on as many refined ones, half of them out of the history.

    The other half of what R just made goes into the history instead (until the history holds half a batch, D sees that
    too). Halves are the even and the odd places of the batch, so they do not depend on the number of ranks.
    """
    with torch.no_grad(), game.autocast():
        refined = game.refiner(synthetic).float()
    shown, kept = refined[::2], refined[1::2]
    fresh = game.gather(kept)
    if game.history.filled >= len(fresh):
        old = game.history.sample(len(fresh), step)[game.rank * len(kept) : (game.rank + 1) * len(kept)]
    else:
        old = kept
    game.history.add(fresh, step)
    logits = game.prepared_discriminator(torch.cat([shown, old, real]))
    on_refined, on_real = discriminator_loss(logits[: len(refined)], logits[len(refined) :])
    metrics = {"loss/d_refined": on_refined.mean(), "loss/d_real": on_real.mean()}
    metrics["skipped/d"] = update(game.optimizer_d, metrics["loss/d_refined"] + metrics["loss/d_real"])
    return {name: value.detach() for name, value in metrics.items()}


@torch.no_grad()
def average(averaged: nn.Module, module: nn.Module, decay: float) -> None:
    """One step of the exponential moving average of a module's weights; ``decay`` 0 copies them."""
    torch._foreach_lerp_(list(averaged.parameters()), list(module.parameters()), 1 - decay)
