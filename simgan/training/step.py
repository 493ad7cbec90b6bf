"""One step of the refiner and one of the discriminator, over any number of ranks, without waiting for the device.

A rank's share may be cut into micro-batches (``Game.accumulate``): neither network has batch norm, so the gradients are
those of the undivided share up to rounding. The history is asked and fed once a step, with the whole batch.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from cluster_jobs.training.compiling import one_line_errors
from cluster_jobs.training.optimizer_step import Metrics, micro_batches, update
from simgan.networks.refiner import Refiner
from simgan.training.health import refiner_signals
from simgan.training.history import History
from simgan.training.losses import adversarial_loss, discriminator_loss, self_regularisation
from simgan.training.psi import Psi, identity


@dataclass(frozen=True)
class Game:
    """The two players and the rules. ``prepared_*`` are the modules as the run wraps them; alone they are the same.

    ``regularisation`` is λ in the convention of ``losses.py``, ``psi`` what it compares. ``gather`` joins the ranks'
    tensors in rank order.
    """

    refiner: Refiner
    discriminator: nn.Module
    prepared_refiner: nn.Module
    prepared_discriminator: nn.Module
    optimizer_r: torch.optim.Optimizer
    optimizer_d: torch.optim.Optimizer
    history: History
    regularisation: float
    rank: int = 0
    gather: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor
    autocast: Callable[[], AbstractContextManager] = nullcontext
    accumulate: int = 1  # micro-batches a rank and step
    psi: Psi = identity


def refiner_step(game: Game, synthetic: torch.Tensor, *, adversarial: bool) -> Metrics:
    """Updates R on synthetic images (n, C, H, W) in [-1, 1]; without ``adversarial`` on self-regularisation alone."""
    loss = _adversarial_loss if adversarial else _warm_up_loss
    game.discriminator.requires_grad_(False)  # its gradients are neither needed nor averaged
    parts = micro_batches(game.accumulate, synthetic)
    metrics, skipped = update(game.optimizer_r, game.prepared_refiner, parts, partial(loss, game))
    game.discriminator.requires_grad_(True)
    return metrics | {"skipped/r": skipped}


def discriminator_step(game: Game, synthetic: torch.Tensor, real: torch.Tensor, step: int) -> Metrics:
    """Updates D on real images (n, C, H, W) in [-1, 1] and on as many refined ones, half of them out of the history.

    The other half of what R just made goes into the history instead (until the history holds half a batch, or where
    there is none, D sees that too). Halves are the even and the odd places of the batch, so they do not depend on the
    number of ranks.
    """
    with torch.no_grad(), game.autocast(), one_line_errors():
        refined = torch.cat([game.refiner(part).float() for part in synthetic.chunk(game.accumulate)])
    shown, kept = refined[::2], refined[1::2]
    old = _exchanged(game, kept, step) if game.history.capacity else kept
    parts = micro_batches(game.accumulate, torch.cat([shown, old]), real)
    metrics, skipped = update(game.optimizer_d, game.prepared_discriminator, parts, partial(_discriminator_loss, game))
    return metrics | {"skipped/d": skipped}


def _exchanged(game: Game, kept: torch.Tensor, step: int) -> torch.Tensor:
    """This rank's share of as many old images as all ranks put into the history; too few, and its own come back."""
    fresh, old = game.gather(kept), kept
    if game.history.filled >= len(fresh):
        old = game.history.sample(len(fresh), step)[game.rank * len(kept) : (game.rank + 1) * len(kept)]
    game.history.add(fresh, step)
    return old


def _warm_up_loss(game: Game, synthetic: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
    refined = game.prepared_refiner(synthetic)
    change = self_regularisation(refined, synthetic, game.psi).mean()
    return game.regularisation * change, {"loss/change": change, **refiner_signals(refined, synthetic)}


def _adversarial_loss(game: Game, synthetic: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
    refined = game.prepared_refiner(synthetic)
    change = self_regularisation(refined, synthetic, game.psi).mean()
    with game.autocast():
        logits = game.discriminator(refined)
    adversarial = adversarial_loss(logits).mean()
    terms = {"loss/change": change, "loss/adversarial": adversarial}
    return game.regularisation * change + adversarial, {**terms, **refiner_signals(refined, synthetic)}


def _discriminator_loss(game: Game, refined: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
    logits = game.prepared_discriminator(torch.cat([refined, real]))
    on_refined, on_real = (loss.mean() for loss in discriminator_loss(logits[: len(refined)], logits[len(refined) :]))
    total = on_refined + on_real
    told = {"loss/d": total / (2 * logits[0].numel()), "spread/d": logits.detach().float().std(correction=0)}
    return total, {"loss/d_refined": on_refined, "loss/d_real": on_real, **told}


@torch.no_grad()
def average(averaged: nn.Module, module: nn.Module, decay: float) -> None:
    """One step of the exponential moving average of a module's weights; ``decay`` 0 copies them."""
    torch._foreach_lerp_(list(averaged.parameters()), list(module.parameters()), 1 - decay)
