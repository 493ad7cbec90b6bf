"""Builds the networks, optimizers, history and schedule of SimGAN from the keys of `simgan.train`."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.seeds import derive_seed
from cluster_jobs.data.images import shape_text
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.ema import Ema
from cluster_jobs.training.run import Run
from selfsup.encoders.loading import ScriptedEncoder, load_encoder
from selfsup.encoders.resnet import Encoder
from simgan.networks.discriminator import ImageDiscriminator, PatchDiscriminator
from simgan.networks.refiner import Refiner
from simgan.training.config import DiscriminatorName, RefinerTrainConfig, ScheduleName
from simgan.training.history import History
from simgan.training.memory import memory_lines
from simgan.training.psi import NAMED, Psi, identity, psi_of_encoder
from simgan.training.schedule import AutoSchedule, Schedule


@dataclass(frozen=True)
class RefinerGame:
    """The two players R and D, their optimizers, and all else that a training step needs.

    ``prepared_*`` are the modules as wrapped by ``Run.prepare``. ``regularisation`` is λ in the convention of
    ``losses.py``, and ``psi`` maps images to the features that it compares. ``gather`` joins the ranks' tensors in rank
    order.
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
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor
    autocast: Callable[[], AbstractContextManager] = nullcontext
    accumulate: int = 1  # micro-batches per rank and step
    psi: Psi = identity


def make_networks(config: RefinerTrainConfig, shape: tuple[int, int, int]) -> tuple[Refiner, nn.Module]:
    """R and D for images of ``shape`` (C, H, W), with initial weights drawn from the seed."""
    channels, height, width = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "simgan networks"))
        refiner = Refiner(
            channels, width=config.width, blocks=config.blocks, stem=config.stem, fold=config.fold, noise=config.noise
        )
        if config.discriminator is DiscriminatorName.patch:
            return refiner, PatchDiscriminator(channels, config.patches.name)
        return refiner, ImageDiscriminator(channels, config.patches.name, (height, width))


def make_schedule(config: RefinerTrainConfig) -> Schedule | AutoSchedule:
    """The fixed or the adaptive schedule. Warm-ups, given in images, are rounded up to whole steps."""
    warm_refiner, warm_discriminator = (
        -(-images // config.batch) for images in (config.warm_refiner_nimg, config.warm_discriminator_nimg)
    )
    schedule = Schedule(warm_refiner, warm_discriminator, config.k_g, config.k_d)
    if config.schedule is ScheduleName.fixed:
        return schedule
    return AutoSchedule(schedule, low=config.d_loss_low, high=config.d_loss_high, max_k_g=config.max_k_g)


def open_encoder(key: str, path: str, shards: Shards) -> Encoder | ScriptedEncoder | None:
    """The encoder that a key names, on the CPU, after a trial on images of the shards' shape; None for an empty path.

    Raises:
        UserError: there is no such encoder, or it does not take these images.
    """
    if not path:
        return None
    try:
        encoder, _ = load_encoder(path, shards.channels, "cpu", size=min(shards.height, shards.width))
        with torch.no_grad():
            encoder(torch.zeros(2, *shards.shape))
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        shape = shape_text(shards.shape)
        raise UserError(f"{key}={path!r} does not take images of {shape} (C × H × W): {reason}") from error
    return encoder


def make_game(
    config: RefinerTrainConfig, synthetic: Shards, encoder: nn.Module | None, run: Run[RefinerTrainConfig]
) -> tuple[RefinerGame, Ema[Refiner]]:
    """The game, and the moving average of R's weights; ``encoder`` is that of ψ."""
    psi: Psi = psi_of_encoder(encoder.to(run.device)) if encoder else NAMED[config.psi]
    refiner, discriminator = make_networks(config, synthetic.shape)
    # channels_last halves the time of a convolution on CPUs and serves tensor cores
    refiner = refiner.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    discriminator = discriminator.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = Ema(refiner)
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
    for line in memory_lines(run, refiner, discriminator, optimizers, history, psi, encoder):
        run.say(line)
    game = RefinerGame(
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
    return game, ema
