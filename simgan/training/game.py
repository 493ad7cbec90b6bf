"""What a run of simgan.train plays with, made from its keys: the two players, ψ, the history, the schedule."""

import copy

import torch
from torch import nn

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.seeds import derive_seed
from cluster_jobs.data.images import shape_text
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.run import Run
from selfsup.encoders.resnet import load_encoder
from simgan.networks.discriminator import GlobalDiscriminator, PatchDiscriminator
from simgan.networks.refiner import Refiner
from simgan.training.config import ScheduleName, TrainConfig, Verdict
from simgan.training.history import History
from simgan.training.memory import memory_lines
from simgan.training.psi import NAMED, Psi, PsiName, encoder_features
from simgan.training.schedule import AutoSchedule, Schedule
from simgan.training.step import Game


def make_players(config: TrainConfig, shape: tuple[int, int, int]) -> tuple[Refiner, nn.Module]:
    """R and D for images of ``shape`` (C, H, W), keyed by the seed."""
    channels, height, width = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "simgan networks"))
        refiner = Refiner(
            channels, width=config.width, blocks=config.blocks, stem=config.stem, fold=config.fold, noise=config.noise
        )
        if config.verdict is Verdict.local:
            return refiner, PatchDiscriminator(channels, config.patches.name)
        return refiner, GlobalDiscriminator(channels, config.patches.name, (height, width))


def make_schedule(config: TrainConfig) -> Schedule | AutoSchedule:
    """The fixed schedule or the one that adapts; a warm-up that ends within a step covers that step."""
    warm_refiner, warm_discriminator = (
        -(-images // config.batch) for images in (config.warm_refiner_nimg, config.warm_discriminator_nimg)
    )
    schedule = Schedule(warm_refiner, warm_discriminator, config.k_g, config.k_d)
    if config.schedule is ScheduleName.fixed:
        return schedule
    return AutoSchedule(schedule, low=config.d_loss_low, high=config.d_loss_high, most=config.most_k_g)


def open_encoder(config: TrainConfig, shards: Shards) -> nn.Module | None:
    """The encoder of ψ, tried out on images like those of ``shards``; None for a ψ that has none.

    Raises:
        UserError: there is no such encoder, or it does not take these images.
    """
    if config.psi is not PsiName.encoder:
        return None
    path = config.psi_encoder
    try:
        encoder, _ = load_encoder(path, shards.channels, "cpu", size=min(shards.height, shards.width))
        with torch.no_grad():
            encoder(torch.zeros(2, *shards.shape))
    except UserError as error:
        raise UserError(f"psi_encoder: {error}") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        shape = shape_text(shards.shape)
        raise UserError(f"psi_encoder={path!r} does not take images of {shape} (C × H × W): {reason}") from error
    return encoder


def build(config: TrainConfig, synthetic: Shards, encoder: nn.Module | None, run: Run) -> tuple[Game, Refiner]:
    """The game, and the average of R's weights; ``encoder`` is that of ψ."""
    psi: Psi = encoder_features(encoder.to(run.device)) if encoder else NAMED[config.psi]
    refiner, discriminator = make_players(config, synthetic.shape)
    # channels_last halves the time of a convolution on CPUs and serves tensor cores
    refiner = refiner.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    discriminator = discriminator.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(refiner).requires_grad_(False)
    betas = (config.beta1, 0.999)
    optimizers = (
        torch.optim.Adam(refiner.parameters(), config.lr_r, betas, fused=True),
        torch.optim.Adam(discriminator.parameters(), config.lr_d, betas, fused=True),
    )
    history = History(
        config.history,
        synthetic.shape,
        seed=config.seed,
        device=run.device,
        rank=run.rank,
        world=run.world,
        gather=run.gather,
        reduce=run.reduce,
    )
    for line in memory_lines(run, refiner, discriminator, optimizers, history, psi):
        run.say(line)
    game = Game(
        refiner,
        discriminator,
        run.prepare(refiner),
        run.prepare(discriminator),
        *optimizers,
        history,
        config.regularisation,
        run.rank,
        run.gather,
        run.autocast,
        config.accumulate,
        psi,
    )
    return game, averaged
