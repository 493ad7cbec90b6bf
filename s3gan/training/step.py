"""One discriminator step and one generator step of a conditional GAN with rotation self-supervision.

Both run over any number of ranks: noise and fake labels are drawn for the global batch and sliced, losses are means
over equal shares, and the two prepared modules average their gradients. Nothing here waits for the device.

A rank's share may be cut into micro-batches (`Game.accumulate`), with the same noise for the same images and the same
images turned. What that changes: the generator's batch norm normalises each micro-batch alone (over all ranks), and its
running moments move once a micro-batch. Spectral norms iterate once a step. D has no batch norm: on the same fakes its
gradient is that of the undivided share up to rounding.
"""

from functools import partial

import torch
from torch import Tensor

from cluster_jobs.training.optimizer_step import Metrics, micro_batches, update
from s3gan.augmentation.ada import AdaptiveAugmentation
from s3gan.losses.auxiliary import prediction_loss, quarter_turns, rotation_loss
from s3gan.losses.penalties import orthogonality_of
from s3gan.losses.regularisers import Shown, penalise
from s3gan.networks.base import weights_of
from s3gan.networks.layers import iterate_spectral_norm
from s3gan.training.game import Game
from s3gan.training.health import signals


def discriminator_step(game: Game, images: Tensor, conditions: Tensor, position: int) -> Metrics:
    """Updates D on real images (n, C, H, W) in [-1, 1] with their conditions, and on as many fakes.

    Conditions are those of `s3gan.networks.Heads`: labels (n,) int64 or soft labels (n, classes) float32.
    """
    _iterate_spectral_norms(game)
    known = conditions >= 0 if conditions.ndim == 1 else conditions.sum(1) > 0.5
    labelled = known.float() * _share_of_known(game, known)
    drawn = game.fakes.draw("discriminator", position)
    noise = [
        game.fakes.uniform("augment real", position, game.augment.draws),
        game.fakes.uniform("augment fake", position, game.augment.draws),
        game.fakes.uniform("regularise", position, sum(regulariser.draws for regulariser in game.regularisers)),
    ]
    parts = micro_batches(game.accumulate, (images, conditions, labelled, *drawn, *noise))
    metrics, skipped = update(
        game.optimizer_d, game.prepared_discriminator, parts, lambda part: _discriminator_loss(game, *part)
    )
    _observe(game, metrics)
    return metrics | {"skipped/d": skipped}


def generator_step(game: Game, images: Tensor, conditions: Tensor, position: int) -> Metrics:
    """Updates G against the frozen D: its scores, and its recognition of turned fakes.

    The real images and their conditions are those of the discriminator's step; only a loss of pairs looks at them.
    """
    _iterate_spectral_norms(game)
    noise = [game.fakes.uniform(f"{what}, generator", position, game.augment.draws) for what in ("fake", "real")]
    parts = micro_batches(game.accumulate, (*game.fakes.draw("generator", position), *noise, images, conditions))
    game.discriminator.requires_grad_(False)  # its gradients are neither needed nor averaged
    metrics, skipped = update(
        game.optimizer_g, game.prepared_generator, parts, lambda part: _generator_loss(game, *part)
    )
    game.discriminator.requires_grad_(True)
    return metrics | {"skipped/g": skipped}


def _observe(game: Game, metrics: Metrics) -> None:
    """Shows the step's mean scores over all ranks to what adapts to them."""
    if not game.states:
        return
    means = torch.stack([metrics[name] for name in ("score/real", "score/fake", "score/sign")])
    real, fake, sign = (game.reduce(means) / game.world).unbind()
    game.averages.update(real, fake)
    if isinstance(game.augment, AdaptiveAugmentation):
        game.augment.observe(sign)
        metrics["augment/p"] = game.augment.p.clone()


def _iterate_spectral_norms(game: Game) -> None:
    for player in (game.generator, game.discriminator):
        iterate_spectral_norm(player, 1)


def _share_of_known(game: Game, known: Tensor) -> Tensor:
    """What makes the mean over equal shares of n images a mean over the global batch's labelled images: a scalar."""
    if game.discriminator.heads.predictor is None:
        return known.new_zeros((), dtype=torch.float32)
    return len(known) * game.world / game.reduce(known.sum().float()).clamp(min=1)


def _discriminator_loss(
    game: Game,
    images: Tensor,
    conditions: Tensor,
    labelled: Tensor,
    z: Tensor,
    fake_labels: Tensor,
    real_noise: Tensor,
    fake_noise: Tensor,
    noise: Tensor,
) -> tuple[Tensor, Metrics]:
    """Real, fake and turned real images pass D together. Turned fakes have no part in its loss: D does not see them.

    `labelled` (n,) weighs the predictor's loss of each real image: 0 where its class is unknown.
    """
    with torch.no_grad(), game.autocast():
        plain = images, game.generator(z, fake_labels).float()
        images, fakes = game.augment(plain[0], real_noise), game.augment(plain[1], fake_noise)
    if conditions.is_floating_point():
        fake_labels = weights_of(fake_labels, conditions.shape[1])
    count, turned = len(images), game.rotation.images // game.accumulate
    shown = torch.cat([images, fakes, quarter_turns(images[count - turned :])])
    shown.requires_grad_(any(regulariser.needs_gradients for regulariser in game.regularisers))
    judged = game.prepared_discriminator(
        shown, torch.cat([conditions, fake_labels, *[conditions[count - turned :]] * 3])
    )
    real, fake = judged.score[:count], judged.score[count : 2 * count]
    loss = game.loss.discriminator(real, fake).mean()
    sign = torch.sign(real if game.loss.absolute else real - fake).mean()
    metrics = {"loss/d": loss, "score/real": real.mean(), "score/fake": fake.mean(), "score/sign": sign}
    metrics |= signals(*plain, real, fake)
    if judged.rotation is not None:
        upright = judged.rotation[count - turned : count]
        metrics |= _rotation_metrics("d", torch.cat([upright, judged.rotation[2 * count :]]))
        loss = loss + game.rotation.weight_d * metrics["loss/rotation_d"]
    if judged.prediction is not None:
        metrics |= _prediction_metrics(judged.prediction[:count], conditions, labelled)
        loss = loss + game.prediction_weight * metrics["loss/prediction_d"]
    seen = Shown(images, fakes, conditions, shown, judged.score, partial(_score, game))
    penalty, measured = penalise(game.regularisers, seen, noise)
    loss, metrics = loss + penalty, metrics | measured
    if game.orthogonal_d:
        metrics["penalty/orthogonal_d"] = orthogonality_of(game.discriminator)
        loss = loss + game.orthogonal_d * metrics["penalty/orthogonal_d"]
    return loss, metrics


def _score(game: Game, images: Tensor, conditions: Tensor) -> Tensor:
    score: Tensor = game.prepared_discriminator(images, conditions).score
    return score


def _generator_loss(
    game: Game,
    z: Tensor,
    labels: Tensor,
    fake_noise: Tensor,
    real_noise: Tensor,
    images: Tensor,
    conditions: Tensor,
) -> tuple[Tensor, Metrics]:
    fakes = game.prepared_generator(z, labels)
    with game.autocast():
        fakes = game.augment(fakes, fake_noise)
        count, turned = len(fakes), game.rotation.images // game.accumulate
        shown = torch.cat([fakes, quarter_turns(fakes[count - turned :])])
        judged = game.discriminator(shown, torch.cat([labels, labels[count - turned :].repeat(3)]))
        real = None
        if game.loss.paired:
            with torch.no_grad():
                real = game.discriminator(game.augment(images, real_noise), conditions).score.float()
    loss = game.loss.generator(judged.score[:count].float(), real).mean()
    metrics = {"loss/g": loss}
    if judged.rotation is not None:
        metrics |= _rotation_metrics("g", judged.rotation[count - turned :])
        loss = loss + game.rotation.weight_g * metrics["loss/rotation_g"]
    if game.orthogonal_g:
        metrics["penalty/orthogonal_g"] = orthogonality_of(game.generator)
        loss = loss + game.orthogonal_g * metrics["penalty/orthogonal_g"]
    return loss, metrics


def _rotation_metrics(player: str, logits: Tensor) -> Metrics:
    """Loss and accuracy of the logits (4n, 4) of n images turned by 0, 90, 180 and 270 degrees, in blocks of n."""
    turns = torch.arange(4, device=logits.device).repeat_interleave(len(logits) // 4)
    accuracy = (logits.argmax(1) == turns).float().mean()
    return {
        f"loss/rotation_{player}": rotation_loss(logits, turns).mean(),
        f"accuracy/rotation_{player}": accuracy,
    }


def _prediction_metrics(logits: Tensor, conditions: Tensor, labelled: Tensor) -> Metrics:
    """Loss and accuracy of the predictor's logits (n, classes), as means over the labelled images."""
    targets = weights_of(conditions, logits.shape[1])
    right = logits.argmax(1) == targets.argmax(1)
    return {
        "loss/prediction_d": (labelled * prediction_loss(logits, targets)).mean(),
        "accuracy/prediction_d": (labelled * right).mean(),
    }
