"""How much faster one round (two discriminator steps, one generator step) is than the plain way to write it.

    python tests/benchmarks/bench_s3gan_step.py [width] [batch] [rounds]

The plain way: NCHW, upsampling and pooling as layers of their own, real, fake and turned images in separate passes
through D, gradients of D in G's step, an unfused Adam, and a look at every loss on the host. The losses are the same.
"""

import sys
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3gan.auxiliary.rotation import Rotation
from s3gan.losses.adversarial import hinge_d, hinge_g
from s3gan.losses.auxiliary import quarter_turns, rotation_loss
from s3gan.networks import HeadPlan
from s3gan.networks.biggan import LIGHT, BigGanDiscriminator, BigGanGenerator
from s3gan.networks.layers import Conv2d, DownConv2d, UpConv2d, iterate_spectral_norm, normalised_weight
from s3gan.training.fakes import Fakes
from s3gan.training.game import Game
from s3gan.training.step import discriminator_step, generator_step

CLASSES, SIZE = 10, 32


class PlainUp(nn.Module):
    def __init__(self, layer: UpConv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x.contiguous(), scale_factor=2.0)
        return F.conv2d(x, normalised_weight(self.layer), self.layer.bias, padding=1)


class PlainDown(nn.Module):
    def __init__(self, layer: DownConv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.conv2d(x.contiguous(), normalised_weight(self.layer), self.layer.bias, padding=1), 2)


class PlainConv(nn.Module):
    def __init__(self, layer: Conv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.contiguous())


def make_plain(module: nn.Module) -> nn.Module:
    """Replaces the fast layers by plain ones over the same weights."""
    for name, child in list(module.named_children()):
        if isinstance(child, UpConv2d):
            setattr(module, name, PlainUp(child))
        elif isinstance(child, DownConv2d):
            setattr(module, name, PlainDown(child))
        elif isinstance(child, Conv2d):
            setattr(module, name, PlainConv(child))
        else:
            make_plain(child)
    return module


def make_game(width: int, batch: int, fused: bool) -> Game:
    torch.manual_seed(0)
    generator, discriminator = (
        BigGanGenerator(LIGHT[32], 1, CLASSES, width),
        BigGanDiscriminator(LIGHT[32], 1, CLASSES, width, HeadPlan(auxiliary={"rotation": 4})),
    )
    fakes = Fakes(0, batch, slice(None), generator.z_dim, CLASSES, torch.device("cpu"))
    optimizers = [
        torch.optim.Adam(player.parameters(), 2e-4, (0.0, 0.999), fused=fused, foreach=False)
        for player in (generator, discriminator)
    ]
    return Game(generator, discriminator, generator, discriminator, *optimizers, fakes, (Rotation(batch // 16),))


def ours(game: Game, images: Tensor, labels: Tensor, position: int) -> None:
    for step in range(2):
        discriminator_step(game, images, labels, position + step)
    generator_step(game, images, labels, position)


def iterate(game: Game) -> None:
    for player in (game.generator, game.discriminator):
        iterate_spectral_norm(player, 1)


def plain(game: Game, images: Tensor, labels: Tensor, position: int) -> None:
    turned = len(images) // 16
    turns = torch.arange(1, 4).repeat_interleave(turned)
    for step in range(2):
        iterate(game)
        z, fake_labels = game.fakes.draw("discriminator", position + step)
        real = game.discriminator(images, labels)
        fake = game.discriminator(game.generator(z, fake_labels).detach(), fake_labels)
        rotated = game.discriminator(quarter_turns(images[-turned:]), labels[-turned:].repeat(3))
        loss = hinge_d(real.score, fake.score).mean() + rotation_loss(rotated.auxiliary["rotation"], turns).mean()
        game.optimizer_d.zero_grad()
        loss.backward()
        if loss.isfinite().item():
            game.optimizer_d.step()
    iterate(game)
    z, labels = game.fakes.draw("generator", position)
    fakes = game.generator(z, labels)
    score = game.discriminator(fakes, labels).score
    rotated = game.discriminator(quarter_turns(fakes[-turned:]), labels[-turned:].repeat(3))
    loss = hinge_g(score).mean() + 0.2 * rotation_loss(rotated.auxiliary["rotation"], turns).mean()
    game.optimizer_g.zero_grad()
    loss.backward()
    if loss.isfinite().item():
        game.optimizer_g.step()


def seconds(player, game: Game, batch: int, rounds: int) -> float:
    """Processor seconds a round, the best of `rounds`, so that neighbours on the machine matter little."""
    images, labels = torch.rand(batch, 1, SIZE, SIZE) * 2 - 1, torch.randint(CLASSES, (batch,))
    best = float("inf")
    for number in range(rounds + 1):  # the first warms up
        begin = time.process_time()
        player(game, images, labels, number * batch)
        best = min(best, time.process_time() - begin) if number else best
    return best


def main(width: int = 16, batch: int = 32, rounds: int = 5) -> None:
    torch.set_num_threads(1)
    fast = seconds(ours, make_game(width, batch, fused=True), batch, rounds)
    game = make_game(width, batch, fused=False)
    make_plain(game.generator), make_plain(game.discriminator)
    slow = seconds(plain, game, batch, rounds)
    print(f"width {width}, batch {batch}: {fast * 1e3:.0f} ms a round, plain {slow * 1e3:.0f} ms")
    print(f"{slow / fast:.2f} times as fast")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
