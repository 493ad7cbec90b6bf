"""One discriminator step and one generator step of a conditional GAN with rotation self-supervision.

Both run over any number of ranks: noise and fake labels are drawn for the global batch and sliced, losses are means
over equal shares, and the two prepared modules average their gradients. Nothing here waits for the device.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cluster_jobs import seeds
from cluster_jobs.optimise import update
from s3gan.losses import hinge_d, hinge_g, quarter_turns, rotation_loss
from s3gan.networks.biggan import Discriminator, Generator

Metrics = dict[str, Tensor]


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


def discriminator_step(game: Game, images: Tensor, labels: Tensor, position: int) -> Metrics:
    """Updates D on real images (n, C, H, W) in [-1, 1] with labels (n,) int64, and on as many fakes.

    Real, fake and turned real images pass D together. Turned fakes have no part in D's loss, so D does not see them.
    """
    z, fake_labels = game.fakes.draw("discriminator", position)
    with torch.no_grad(), game.autocast():
        fakes = game.generator(z, fake_labels)
    count, turned = len(images), game.rotation.images
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
    metrics["skipped/d"] = update(game.optimizer_d, loss)
    return _detached(metrics)


def generator_step(game: Game, position: int) -> Metrics:
    """Updates G against the frozen D: its scores, and its recognition of turned fakes."""
    z, labels = game.fakes.draw("generator", position)
    fakes = game.prepared_generator(z, labels)
    count, turned = len(fakes), game.rotation.images
    shown = torch.cat([fakes, quarter_turns(fakes[count - turned :])])
    conditions = torch.cat([labels, labels[count - turned :].repeat(3)])
    game.discriminator.requires_grad_(False)  # its gradients are neither needed nor averaged
    with game.autocast():
        score, logits, _ = game.discriminator(shown, conditions)
    loss = hinge_g(score[:count].float()).mean()
    metrics = {"loss/g": loss}
    if logits is not None:
        metrics |= _rotation_metrics("g", logits[count - turned :])
        loss = loss + game.rotation.weight_g * metrics["loss/rotation_g"]
    metrics["skipped/g"] = update(game.optimizer_g, loss)
    game.discriminator.requires_grad_(True)
    return _detached(metrics)


def _rotation_metrics(player: str, logits: Tensor) -> Metrics:
    """Loss and accuracy of the logits (4n, 4) of n images turned by 0, 90, 180 and 270 degrees, in blocks of n."""
    turns = torch.arange(4, device=logits.device).repeat_interleave(len(logits) // 4)
    accuracy = (logits.argmax(1) == turns).float().mean()
    return {
        f"loss/rotation_{player}": rotation_loss(logits, turns).mean(),
        f"accuracy/rotation_{player}": accuracy,
    }


def _detached(metrics: Metrics) -> Metrics:
    return {name: value.detach() for name, value in metrics.items()}
