"""One discriminator step and one generator step of a conditional GAN with rotation self-supervision.

Both run over any number of ranks: noise and fake labels are drawn for the global batch and sliced, losses are means
over equal shares, and the two prepared modules average their gradients. Nothing here waits for the device.

A rank's share may be cut into micro-batches (`Game.accumulate`), with the same noise for the same images and the same
images turned. What that changes: the generator's batch norm normalises each micro-batch alone (over all ranks), and its
running moments move once a micro-batch. Spectral norms iterate once a step. D has no batch norm: on the same fakes its
gradient is that of the undivided share up to rounding.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from cluster_jobs import seeds
from cluster_jobs.optimise import Metrics, micro_batches, update
from s3gan.layers import iterate_spectral_norm
from s3gan.losses import hinge_d, hinge_g, quarter_turns, rotation_loss
from s3gan.networks.biggan import Discriminator, Generator


@dataclass(frozen=True)
class Fakes:
    """Draws noise and conditions, keyed by purpose and stream position and equal for any number of ranks.

    `weights` (classes,) float64 is the distribution of the conditions; None is uniform.
    """

    seed: int
    batch: int  # global
    rank: int
    world: int
    z_dim: int
    classes: int
    device: torch.device
    weights: Tensor | None = None

    def draw(self, purpose: str, position: int) -> tuple[Tensor, Tensor]:
        """This rank's z (n, z_dim) float32 ~ N(0, I) and labels (n,) int64 of the global batch at `position`."""
        generator = seeds.generator(self.device, self.seed, purpose, position)
        z = torch.randn(self.batch, self.z_dim, generator=generator, device=self.device)
        if self.weights is None:
            labels = torch.randint(self.classes, (self.batch,), generator=generator, device=self.device)
        else:
            labels = torch.multinomial(self.weights, self.batch, replacement=True, generator=generator)
        share = slice(self.rank * self.batch // self.world, (self.rank + 1) * self.batch // self.world)
        return z[share], labels[share]


@dataclass(frozen=True)
class Rotation:
    """Rotation self-supervision (Lucic et al. 2019, section 3.3): the last `images` of a rank's batch are also shown
    turned by 90, 180 and 270 degrees; D learns the turns of real images, G is rewarded for turns that D recognises."""

    images: int = 0  # 0: off
    weight_d: float = 1.0
    weight_g: float = 0.2


@dataclass(frozen=True)
class Game:
    """The two players and the rules. `prepared_*` are the modules as the run wraps them; alone they are the same."""

    generator: Generator
    discriminator: Discriminator
    prepared_generator: nn.Module
    prepared_discriminator: nn.Module
    optimizer_g: torch.optim.Optimizer
    optimizer_d: torch.optim.Optimizer
    fakes: Fakes
    rotation: Rotation
    autocast: Callable[[], AbstractContextManager] = nullcontext
    accumulate: int = 1  # micro-batches a rank and step; `rotation.images` divides by it


def discriminator_step(game: Game, images: Tensor, labels: Tensor, position: int) -> Metrics:
    """Updates D on real images (n, C, H, W) in [-1, 1] with labels (n,) int64, and on as many fakes."""
    _iterate_spectral_norms(game)
    parts = micro_batches(game.accumulate, images, labels, *game.fakes.draw("discriminator", position))
    metrics, skipped = update(game.optimizer_d, game.prepared_discriminator, parts, partial(_discriminator_loss, game))
    return metrics | {"skipped/d": skipped}


def generator_step(game: Game, position: int) -> Metrics:
    """Updates G against the frozen D: its scores, and its recognition of turned fakes."""
    _iterate_spectral_norms(game)
    parts = micro_batches(game.accumulate, *game.fakes.draw("generator", position))
    game.discriminator.requires_grad_(False)  # its gradients are neither needed nor averaged
    metrics, skipped = update(game.optimizer_g, game.prepared_generator, parts, partial(_generator_loss, game))
    game.discriminator.requires_grad_(True)
    return metrics | {"skipped/g": skipped}


def _iterate_spectral_norms(game: Game) -> None:
    for player in (game.generator, game.discriminator):
        iterate_spectral_norm(player, 1)


def _discriminator_loss(
    game: Game, images: Tensor, labels: Tensor, z: Tensor, fake_labels: Tensor
) -> tuple[Tensor, Metrics]:
    """Real, fake and turned real images pass D together. Turned fakes have no part in its loss: D does not see them."""
    with torch.no_grad(), game.autocast():
        fakes = game.generator(z, fake_labels)
    count, turned = len(images), game.rotation.images // game.accumulate
    shown = torch.cat([images, fakes, quarter_turns(images[count - turned :])])
    conditions = torch.cat([labels, fake_labels, labels[count - turned :].repeat(3)])
    score, logits, _ = game.prepared_discriminator(shown, conditions)
    real, fake = score[:count], score[count : 2 * count]
    loss = hinge_d(real, fake).mean()
    metrics = {"loss/d": loss, "score/real": real.mean(), "score/fake": fake.mean()}
    if logits is not None:
        upright = logits[count - turned : count]
        metrics |= _rotation_metrics("d", torch.cat([upright, logits[2 * count :]]))
        loss = loss + game.rotation.weight_d * metrics["loss/rotation_d"]
    return loss, metrics


def _generator_loss(game: Game, z: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
    fakes = game.prepared_generator(z, labels)
    count, turned = len(fakes), game.rotation.images // game.accumulate
    shown = torch.cat([fakes, quarter_turns(fakes[count - turned :])])
    conditions = torch.cat([labels, labels[count - turned :].repeat(3)])
    with game.autocast():
        score, logits, _ = game.discriminator(shown, conditions)
    loss = hinge_g(score[:count].float()).mean()
    metrics = {"loss/g": loss}
    if logits is not None:
        metrics |= _rotation_metrics("g", logits[count - turned :])
        loss = loss + game.rotation.weight_g * metrics["loss/rotation_g"]
    return loss, metrics


def _rotation_metrics(player: str, logits: Tensor) -> Metrics:
    """Loss and accuracy of the logits (4n, 4) of n images turned by 0, 90, 180 and 270 degrees, in blocks of n."""
    turns = torch.arange(4, device=logits.device).repeat_interleave(len(logits) // 4)
    accuracy = (logits.argmax(1) == turns).float().mean()
    return {
        f"loss/rotation_{player}": rotation_loss(logits, turns).mean(),
        f"accuracy/rotation_{player}": accuracy,
    }
