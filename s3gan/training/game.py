"""Builds G, D, their optimizers, losses, augmentation and regularisers from the configuration."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cluster_jobs.core import seeds
from cluster_jobs.core.errors import UserError
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.batch_split import strided
from cluster_jobs.distributed.batchnorm import synchronise
from cluster_jobs.training.ema import Ema
from cluster_jobs.training.run import Run
from s3gan.augmentation import AUGMENTATIONS, Setting
from s3gan.augmentation.ada import AdaptiveAugmentation
from s3gan.augmentation.base import Augmentation, NoAugmentation
from s3gan.auxiliary import AUXILIARY, AuxiliaryHead
from s3gan.losses.adversarial import LOSSES, AdversarialLoss
from s3gan.losses.penalties import ScoreAverages
from s3gan.losses.regularisers import Consistency, GradientPenalty, LeCam, Regulariser, SquaredGradient
from s3gan.methods import Method
from s3gan.networks import NETWORKS, Discriminator, Generator, HeadPlan
from s3gan.training.conditioning import Conditions
from s3gan.training.config import TrainConfig
from s3gan.training.fakes import Fakes
from s3gan.training.memory import memory_lines


@dataclass(frozen=True)
class Game:
    """G and D and what a step does with them. `prepared_*` are the modules as the run wraps them, or the same."""

    generator: Generator
    discriminator: Discriminator
    prepared_generator: nn.Module
    prepared_discriminator: nn.Module
    optimizer_g: torch.optim.Optimizer
    optimizer_d: torch.optim.Optimizer
    fakes: Fakes
    heads: tuple[AuxiliaryHead, ...] = ()  # what D learns in addition to its score, in this order
    autocast: Callable[[], AbstractContextManager] = nullcontext
    accumulate: int = 1  # micro-batches a rank and step
    world: int = 1
    reduce: Callable[[Tensor], Tensor] = torch.clone  # the sum over ranks
    loss: AdversarialLoss = LOSSES["hinge"]
    augment: Augmentation = NoAugmentation()
    regularisers: tuple[Regulariser, ...] = ()
    averages: ScoreAverages = field(default_factory=ScoreAverages)
    orthogonal_g: float = 0.0
    orthogonal_d: float = 0.0

    @property
    def states(self) -> dict[str, nn.Module]:
        """What changes in training in addition to the players, for checkpoints. Depends on the configuration alone."""
        states: dict[str, nn.Module] = {}
        if isinstance(self.augment, AdaptiveAugmentation):
            states["augmentation"] = self.augment
        if any(isinstance(regulariser, LeCam) for regulariser in self.regularisers):
            states["score_averages"] = self.averages
        return states


def make_game(
    config: TrainConfig, run: Run[TrainConfig], conditions: Conditions, shards: Shards
) -> tuple[Game, Ema[Generator]]:
    """The two players with keyed initial weights, their optimizers, and the generator's average."""
    network, classes = NETWORKS[config.network.name], len(conditions.class_names)
    heads = make_heads(config, conditions.method, run.world)
    torch.manual_seed(seeds.derive_seed(config.seed, "networks"))
    of = shards.size, shards.channels, classes, config.width
    generator = network.generator(*of, normalise=config.g_spectral_norm, embedding_std=config.embedding_std)
    discriminator = network.discriminator(
        *of, head_plan(config, conditions.method, heads, classes), normalise=config.d_spectral_norm
    )
    generator, discriminator = generator.to(run.device), discriminator.to(run.device)
    ema = Ema(generator)  # before the run wraps it and the ranks share moments
    betas = (config.beta1, config.beta2)
    optimizers = (
        torch.optim.Adam(generator.parameters(), config.g_lr, betas, fused=True),
        torch.optim.Adam(discriminator.parameters(), config.d_lr, betas, fused=True),
    )
    for line in memory_lines(run, generator, discriminator, optimizers, shards.channels, heads):
        run.say(line)
    if run.world > 1:
        synchronise(generator, run.reduce)
    fakes = Fakes(
        seed=config.seed,
        batch=config.batch,
        mine=strided(config.batch, run.rank, run.world),
        z_dim=generator.z_dim,
        classes=classes,
        device=run.device,
        weights=conditions.device_weights(run.device),
    )
    setting = Setting(config.batch, rotation="rotation" in conditions.method.heads)
    augment, averages = AUGMENTATIONS[config.augment.name](setting), ScoreAverages().to(run.device)
    if isinstance(augment, nn.Module):
        augment = augment.to(run.device)
    game = Game(
        generator,
        discriminator,
        run.prepare(generator),
        run.prepare(discriminator),
        *optimizers,
        fakes,
        heads,
        autocast=run.autocast,
        accumulate=config.accumulate,
        world=run.world,
        reduce=run.reduce,
        loss=LOSSES[config.loss.name],
        augment=augment,
        regularisers=make_regularisers(config, averages),
        averages=averages,
        orthogonal_g=config.orthogonal_g,
        orthogonal_d=config.orthogonal_d,
    )
    return game, ema


def make_regularisers(config: TrainConfig, averages: ScoreAverages) -> tuple[Regulariser, ...]:
    """Those whose weight is above 0."""
    possible: tuple[Regulariser, ...] = (
        SquaredGradient("r1", config.r1, 0),
        SquaredGradient("r2", config.r2, 1),
        GradientPenalty(config.gradient_penalty),
        LeCam(config.lecam, averages),
        Consistency(config.consistency),
    )
    return tuple(regulariser for regulariser in possible if regulariser.weight > 0)


def make_heads(config: TrainConfig, method: Method, ranks: int) -> tuple[AuxiliaryHead, ...]:
    """The auxiliary heads of a method, in the order of their table. Raises UserError for a head that is not in it."""
    if unknown := set(method.heads) - set(AUXILIARY):
        raise UserError(f"method={method.name}: heads {sorted(unknown)}, expected some of {', '.join(AUXILIARY)}")
    return tuple(make(config, ranks) for name, make in AUXILIARY.items() if name in method.heads)


def head_plan(config: TrainConfig, method: Method, heads: tuple[AuxiliaryHead, ...], classes: int) -> HeadPlan:
    """The heads that a method's discriminator has."""
    return HeadPlan(method.projection, {head.name: head.outputs(classes) for head in heads}, config.soft_predictions)
