"""One step of the refiner and one of the discriminator, over any number of ranks, without waiting for the device.

A rank's share may be cut into micro-batches (``RefinerGame.accumulate``): neither network has batch norm, so the
gradients are those of the undivided share up to rounding. The history is drawn from and added to once a step, with the
whole batch.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from cluster_jobs.training.optimizer_step import Metrics, compile_errors_in_one_line, micro_batches, update
from simgan.training.game import RefinerGame
from simgan.training.health import refiner_signals
from simgan.training.losses import adversarial_loss, discriminator_loss, self_regularisation


class RefinerBatch(NamedTuple):
    """What a step of R looks at."""

    synthetic: Tensor  # (n, C, H, W) in [-1, 1]


class RefinedAndReal(NamedTuple):
    """What a step of D looks at, (n, C, H, W) in [-1, 1] each."""

    refined: Tensor
    real: Tensor


def refiner_step(game: RefinerGame, synthetic: Tensor, *, adversarial: bool) -> Metrics:
    """Updates R on synthetic images (n, C, H, W) in [-1, 1]; without ``adversarial`` on self-regularisation alone."""
    loss = _adversarial_loss if adversarial else _warm_up_loss
    game.discriminator.requires_grad_(False)  # its gradients are neither needed nor averaged
    parts = micro_batches(game.accumulate, RefinerBatch(synthetic))
    metrics, skipped = update(game.optimizer_r, game.prepared_refiner, parts, partial(loss, game))
    game.discriminator.requires_grad_(True)
    return metrics | {"skipped/r": skipped}


def discriminator_step(game: RefinerGame, synthetic: Tensor, real: Tensor, step: int) -> Metrics:
    """Updates D on real images (n, C, H, W) in [-1, 1] and on as many refined ones, half of them out of the history.

    The other half of what R just made goes into the history instead (until the history holds half a batch, or where
    there is none, D sees that too). Halves are the even and the odd places of the batch, so they do not depend on the
    number of ranks.
    """
    with torch.no_grad(), game.autocast(), compile_errors_in_one_line():
        refined = torch.cat([game.refiner(part).float() for part in synthetic.chunk(game.accumulate)])
    shown, kept = refined[::2], refined[1::2]
    old = _exchanged(game, kept, step) if game.history.capacity else kept
    parts = micro_batches(game.accumulate, RefinedAndReal(torch.cat([shown, old]), real))
    metrics, skipped = update(game.optimizer_d, game.prepared_discriminator, parts, partial(_discriminator_loss, game))
    return metrics | {"skipped/d": skipped}


def _exchanged(game: RefinerGame, kept: Tensor, step: int) -> Tensor:
    """This rank's share of as many old images as all ranks put into the history; too few, and its own come back."""
    fresh, old = game.gather(kept), kept
    if game.history.filled >= len(fresh):
        old = game.history.sample(len(fresh), step)[game.rank * len(kept) : (game.rank + 1) * len(kept)]
    game.history.add(fresh, step)
    return old


def _warm_up_loss(game: RefinerGame, batch: RefinerBatch) -> tuple[Tensor, Metrics]:
    synthetic = batch.synthetic
    refined = game.prepared_refiner(synthetic)
    change = self_regularisation(refined, synthetic, game.psi).mean()
    return game.regularisation * change, {"loss/change": change, **refiner_signals(refined, synthetic)}


def _adversarial_loss(game: RefinerGame, batch: RefinerBatch) -> tuple[Tensor, Metrics]:
    synthetic = batch.synthetic
    refined = game.prepared_refiner(synthetic)
    change = self_regularisation(refined, synthetic, game.psi).mean()
    with game.autocast():
        logits = game.discriminator(refined)
    adversarial = adversarial_loss(logits).mean()
    terms = {"loss/change": change, "loss/adversarial": adversarial}
    return game.regularisation * change + adversarial, {**terms, **refiner_signals(refined, synthetic)}


def _discriminator_loss(game: RefinerGame, batch: RefinedAndReal) -> tuple[Tensor, Metrics]:
    logits, count = game.prepared_discriminator(torch.cat(batch)), len(batch.refined)
    on_refined, on_real = (loss.mean() for loss in discriminator_loss(logits[:count], logits[count:]))
    total = on_refined + on_real
    return total, {
        "loss/d_refined": on_refined,
        "loss/d_real": on_real,
        "loss/d": total / (2 * logits[0].numel()),
        "spread/d": logits.detach().float().std(correction=0),
    }
