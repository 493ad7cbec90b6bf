"""The memory that training a conditional GAN takes on each process, for the lines at the start of a run."""

from collections.abc import Sequence

import torch
from torch import nn

from cluster_jobs.distributed.batchnorm import synchronise
from cluster_jobs.training.memory import Networks, measure, module_bytes, report
from cluster_jobs.training.run import Run
from s3gan.auxiliary import AuxiliaryHead
from s3gan.networks import Generator
from s3gan.training.config import TrainConfig


def memory_lines(
    run: Run[TrainConfig],
    generator: Generator,
    discriminator: nn.Module,
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    channels: int,
    heads: Sequence[AuxiliaryHead],
) -> list[str]:
    """Lines on the two networks, before the run prepares them, and D's auxiliary heads with their views of images."""
    count, size = run.local_batch // run.config.accumulate, generator.size
    device = generator.device

    def labels(number: int) -> torch.Tensor:
        return torch.empty(number, dtype=torch.int64, device=device)

    def generator_pass(networks: Networks) -> object:
        if run.world > 1:
            synchronise(networks["generator"], torch.clone)  # what it saves is what moments over ranks save
        networks["discriminator"].requires_grad_(False)
        with run.autocast():
            fakes = networks["generator"](torch.empty(count, generator.z_dim, device=device), labels(count))
            inputs = torch.cat([fakes, *(head.views(fakes) for head in heads)])
            return networks["discriminator"](inputs, labels(len(inputs)))

    def discriminator_pass(networks: Networks) -> object:
        images = torch.empty(count, channels, size, size, device=device)
        inputs = torch.cat([images, images, *(head.views(images) for head in heads)])
        with run.autocast():
            return networks["discriminator"](inputs, labels(len(inputs)))

    players = {"generator": (generator, optimizers[0]), "discriminator": (discriminator, optimizers[1])}
    footprints = measure(players, {"generator": generator_pass, "discriminator": discriminator_pass})
    return report(footprints, count, others=module_bytes(generator))
