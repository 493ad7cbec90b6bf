"""One discriminator step and one generator step of a conditional GAN with its auxiliary heads.

Both run over any number of ranks: noise and fake labels are drawn for the global batch and sliced, losses are means
over equal shares, and the two prepared modules average their gradients. Nothing here waits for the device.

A rank's share may be cut into micro-batches (`Game.accumulate`), with the same noise for the same images and the same
images turned. What that changes: the generator's batch norm normalises each micro-batch alone (over all ranks), and its
running moments move once per micro-batch. Spectral norms iterate once per step. D has no batch norm: on the same fakes
its gradient is that of the undivided share up to rounding.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from cluster_jobs.training.optimizer_step import Metrics, micro_batches, update
from s3gan.augmentation.ada import AdaptiveAugmentation
from s3gan.auxiliary.base import DiscriminatorPass, GeneratorPass
from s3gan.losses.penalties import orthogonality_of
from s3gan.losses.regularisers import ScoredImages, penalise
from s3gan.networks.heads import one_hot
from s3gan.networks.layers import iterate_spectral_norm
from s3gan.training.game import Game
from s3gan.training.health import signals


class DiscriminatorBatch(NamedTuple):
    """What one rank's discriminator step is made of: n real images, and the noise of n fakes."""

    images: Tensor  # (n, C, H, W) in [-1, 1]
    conditions: Tensor  # labels (n,) int64, or soft labels (n, classes) float32
    labelled: Tensor  # (n,) weights of a mean over the labelled real images
    z: Tensor  # (n, z_dim)
    fake_labels: Tensor  # (n,) int64
    real_noise: Tensor  # (n, draws) uniform in [0, 1), of the real images' augmentation
    fake_noise: Tensor  # the same for the fakes
    penalty_noise: Tensor  # (n, draws) uniform in [0, 1), of the regularisers


class GeneratorBatch(NamedTuple):
    """What one rank's generator step is made of: the noise of n fakes, and n real images for a loss of pairs."""

    z: Tensor  # (n, z_dim)
    labels: Tensor  # (n,) int64
    fake_noise: Tensor  # (n, draws) uniform in [0, 1), of the fakes' augmentation
    real_noise: Tensor  # the same for the real images
    images: Tensor  # (n, C, H, W) in [-1, 1]
    conditions: Tensor  # of the real images


def discriminator_step(game: Game, images: Tensor, conditions: Tensor, position: int) -> Metrics:
    """Updates D on real images (n, C, H, W) in [-1, 1] with their conditions, and on as many fakes.

    Conditions are those of `s3gan.networks.Heads`: labels (n,) int64 or soft labels (n, classes) float32.
    """
    _iterate_spectral_norms(game)
    labelled = _label_weights(game, conditions)
    z, fake_labels = game.fakes.draw("discriminator", position)
    batch = DiscriminatorBatch(
        images,
        conditions,
        labelled,
        z,
        fake_labels,
        real_noise=game.fakes.uniform("augment real", position, game.augment.draws),
        fake_noise=game.fakes.uniform("augment fake", position, game.augment.draws),
        penalty_noise=game.fakes.uniform("regularise", position, sum(each.draws for each in game.regularisers)),
    )
    batches, loss = micro_batches(game.accumulate, batch), partial(_discriminator_loss, game)
    metrics, skipped = update(game.optimizer_d, game.prepared_discriminator, batches, loss)
    _observe(game, metrics)
    return metrics | {"skipped/d": skipped}


def generator_step(game: Game, images: Tensor, conditions: Tensor, position: int) -> Metrics:
    """Updates G against the frozen D: by its scores of fakes and by its auxiliary heads.

    The real images and their conditions are those of the discriminator's step; only a loss of pairs looks at them.
    """
    _iterate_spectral_norms(game)
    z, labels = game.fakes.draw("generator", position)
    batch = GeneratorBatch(
        z,
        labels,
        fake_noise=game.fakes.uniform("fake, generator", position, game.augment.draws),
        real_noise=game.fakes.uniform("real, generator", position, game.augment.draws),
        images=images,
        conditions=conditions,
    )
    batches, loss = micro_batches(game.accumulate, batch), partial(_generator_loss, game)
    game.discriminator.requires_grad_(False)  # its gradients are neither needed nor averaged
    metrics, skipped = update(game.optimizer_g, game.prepared_generator, batches, loss)
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


def _label_weights(game: Game, conditions: Tensor) -> Tensor:
    """Weights (n,) that make the mean over equal shares of n images a mean over the global batch's labelled images.

    0 where the class is unknown, and for all images where no head asks for them.
    """
    known = conditions >= 0 if conditions.ndim == 1 else conditions.sum(1) > 0.5
    if not any(head.labelled_only for head in game.heads):
        return known.new_zeros(len(known), dtype=torch.float32)
    return known.float() * (len(known) * game.world / game.reduce(known.sum().float()).clamp(min=1))


def _discriminator_loss(game: Game, batch: DiscriminatorBatch) -> tuple[Tensor, Metrics]:
    """Real images, fakes, and the heads' views of real images pass D together."""
    with torch.no_grad(), game.autocast():
        generated = game.generator(batch.z, batch.fake_labels).float()
        images, fakes = game.augment(batch.images, batch.real_noise), game.augment(generated, batch.fake_noise)
    conditions, fake_labels = batch.conditions, batch.fake_labels
    if conditions.is_floating_point():
        fake_labels = one_hot(fake_labels, conditions.shape[1])
    views = [head.views(images) for head in game.heads]
    inputs = torch.cat([images, fakes, *views])
    inputs.requires_grad_(any(regulariser.needs_gradients for regulariser in game.regularisers))
    view_conditions = [head.view_conditions(conditions) for head in game.heads]
    judgement = game.prepared_discriminator(inputs, torch.cat([conditions, fake_labels, *view_conditions]))
    count = len(images)
    real, fake = judgement.score[:count], judgement.score[count : 2 * count]
    loss = game.loss.discriminator(real, fake).mean()
    sign = torch.sign(real if game.loss.absolute else real - fake).mean()
    metrics = {"loss/d": loss, "score/real": real.mean(), "score/fake": fake.mean(), "score/sign": sign}
    metrics |= signals(batch.images, generated, real, fake)
    sizes = [count, count, *map(len, views)]
    for number, head in enumerate(game.heads):
        outputs = judgement.auxiliary[head.name].split(sizes)
        term = head.discriminator_term(
            DiscriminatorPass(
                real=outputs[0],
                fake=outputs[1],
                views=outputs[2 + number],
                images=images,
                fakes=fakes,
                conditions=conditions,
                fake_labels=fake_labels,
                labelled=batch.labelled,
                z=batch.z,
            )
        )
        loss, metrics = loss + term.weight * term.loss, metrics | term.metrics
    scored = ScoredImages(images, fakes, conditions, inputs, judgement.score, partial(_score, game))
    penalty, measured = penalise(game.regularisers, scored, batch.penalty_noise)
    loss, metrics = loss + penalty, metrics | measured
    if game.orthogonal_d:
        metrics["penalty/orthogonal_d"] = orthogonality_of(game.discriminator)
        loss = loss + game.orthogonal_d * metrics["penalty/orthogonal_d"]
    return loss, metrics


def _score(game: Game, images: Tensor, conditions: Tensor) -> Tensor:
    score: Tensor = game.prepared_discriminator(images, conditions).score
    return score


def _generator_loss(game: Game, batch: GeneratorBatch) -> tuple[Tensor, Metrics]:
    """Fakes and the heads' views of them pass D together."""
    fakes = game.prepared_generator(batch.z, batch.labels)
    with game.autocast():
        fakes = game.augment(fakes, batch.fake_noise)
        views = [head.views(fakes) for head in game.heads]
        view_labels = [head.view_conditions(batch.labels) for head in game.heads]
        judgement = game.discriminator(torch.cat([fakes, *views]), torch.cat([batch.labels, *view_labels]))
        real = None
        if game.loss.paired:
            with torch.no_grad():
                seen = game.augment(batch.images, batch.real_noise)
                real = game.discriminator(seen, batch.conditions).score.float()
    count = len(fakes)
    loss = game.loss.generator(judgement.score[:count].float(), real).mean()
    metrics = {"loss/g": loss}
    sizes = [count, *map(len, views)]
    for number, head in enumerate(game.heads):
        outputs = judgement.auxiliary[head.name].split(sizes)
        term = head.generator_term(GeneratorPass(outputs[0], outputs[1 + number], fakes, batch.labels, batch.z))
        if term is not None:
            loss, metrics = loss + term.weight * term.loss, metrics | term.metrics
    if game.orthogonal_g:
        metrics["penalty/orthogonal_g"] = orthogonality_of(game.generator)
        loss = loss + game.orthogonal_g * metrics["penalty/orthogonal_g"]
    return loss, metrics
