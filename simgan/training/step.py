"""One step of the refiner and one of the discriminator, over any number of ranks, without waiting for the device.

A rank's share may be cut into micro-batches (``RefinerGame.accumulate``): neither network has batch norm, so the
gradients are those of the whole share up to rounding. The history is read and written once per step, with the whole
batch.
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
    """The input of a step of R."""

    synthetic: Tensor  # (n, C, H, W) in [-1, 1]


class RefinedAndReal(NamedTuple):
    """The input of a step of D, (n, C, H, W) in [-1, 1] each."""

    refined: Tensor
    real: Tensor


def refiner_step(game: RefinerGame, synthetic: Tensor, *, adversarial: bool) -> Metrics:
    """Updates R on synthetic images (n, C, H, W) in [-1, 1]; without ``adversarial`` by self-regularisation alone."""
    loss = _adversarial_loss if adversarial else _warm_up_loss
    game.discriminator.requires_grad_(False)  # its gradients are neither needed nor averaged
    batches = micro_batches(game.accumulate, RefinerBatch(synthetic))
    metrics, skipped = update(game.optimizer_r, game.prepared_refiner, batches, partial(loss, game))
    game.discriminator.requires_grad_(True)
    return metrics | {"skipped/r": skipped}


def discriminator_step(game: RefinerGame, synthetic: Tensor, real: Tensor, step: int) -> Metrics:
    """Updates D on real images (n, C, H, W) in [-1, 1] and on as many refined ones, half of them from the history.

    R refines a whole batch. D sees the images at even positions; those at odd positions are exchanged for images of the
    history. While the history holds less than half a batch, or where there is none, D sees both halves. Positions in
    the batch do not depend on the number of ranks.
    """
    with torch.no_grad(), game.autocast(), compile_errors_in_one_line():
        refined = torch.cat([game.refiner(part).float() for part in synthetic.chunk(game.accumulate)])
    fresh, exchanged = refined[::2], refined[1::2]
    old = _through_history(game, exchanged, step) if game.history.capacity else exchanged
    batches = micro_batches(game.accumulate, RefinedAndReal(torch.cat([fresh, old]), real))
    metrics, skipped = update(
        game.optimizer_d, game.prepared_discriminator, batches, partial(_discriminator_loss, game)
    )
    return metrics | {"skipped/d": skipped}


def _through_history(game: RefinerGame, given: Tensor, step: int) -> Tensor:
    """Adds images to the history; returns this rank's share of as many old ones, or the given if it has too few."""
    fresh, old = game.gather(given), given
    if game.history.filled >= len(fresh):
        old = game.history.sample(len(fresh), step)[game.rank * len(given) : (game.rank + 1) * len(given)]
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
