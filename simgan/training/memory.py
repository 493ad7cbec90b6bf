"""An estimate of the memory that training a refiner takes on each process, printed at the start of a run."""

import torch
from torch import nn

from cluster_jobs.training.memory import Networks, measure, module_bytes, report
from cluster_jobs.training.run import Run
from selfsup.encoders.resnet import Encoder
from simgan.networks.refiner import Refiner
from simgan.training.config import RefinerTrainConfig
from simgan.training.history import History
from simgan.training.losses import self_regularisation
from simgan.training.psi import Psi, identity, psi_of_encoder


def memory_lines(
    run: Run[RefinerTrainConfig],
    refiner: Refiner,
    discriminator: nn.Module,
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    history: History,
    psi: Psi,
    psi_encoder: nn.Module | None,
) -> list[str]:
    """Lines on R, on D, and in all, with R's moving average and this rank's share of the history.

    The networks are not prepared by the run yet. A TorchScript encoder of ψ is not counted: fake tensors cannot run it.
    """
    count = run.local_batch // run.config.accumulate

    def images(number: int) -> torch.Tensor:
        return torch.empty(number, *history.images.shape[1:], device=history.images.device)

    def refiner_pass(networks: Networks) -> object:
        networks["discriminator"].requires_grad_(False)
        imitated = psi_of_encoder(networks["psi_encoder"]) if "psi_encoder" in networks else psi
        synthetic = images(count)
        with run.autocast():
            refined = networks["refiner"](synthetic)
            return self_regularisation(refined, synthetic, imitated), networks["discriminator"](refined)

    def discriminator_pass(networks: Networks) -> object:
        with run.autocast():
            return networks["discriminator"](images(2 * count))

    players: dict[str, tuple[nn.Module, torch.optim.Optimizer | None]] = {
        "refiner": (refiner, optimizers[0]),
        "discriminator": (discriminator, optimizers[1]),
    }
    if isinstance(psi_encoder, Encoder):
        players["psi_encoder"] = psi_encoder, None
    elif psi_encoder is not None:
        psi = identity
    footprints = measure(players, {"refiner": refiner_pass, "discriminator": discriminator_pass})
    return report(footprints, count, others=module_bytes(refiner) + history.images.nbytes)
