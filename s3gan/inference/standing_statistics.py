"""A trained generator made ready for evaluation: spectral norm folded into the weights, batch norm with fixed moments.

Standing statistics (Brock et al. 2019, section 4.1): batch norm in evaluation uses the moments of many generated
batches. They are computed once per checkpoint, in fixed blocks with float64 sums, and kept in `RUN/standing/`.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from cluster_jobs.cli.exit_record import rank
from cluster_jobs.core import seeds
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import make_parent, write_atomically
from cluster_jobs.distributed.batchnorm import BatchNorm, moments
from s3gan.networks import Generator
from s3gan.networks.layers import fold_spectral_norm, iterate_spectral_norm

BLOCK = 64  # samples per block of the standing statistics
SAMPLES = 2048, 10  # at least so many, and so many for each class


def settle(
    generator: Generator, weights: list[float] | None, cache: Path | None = None, identity: str = ""
) -> Generator:
    """Makes a trained generator ready for evaluation, in place: spectral norm folded in, standing statistics set.

    Args:
        weights: distribution of the classes in training; None is uniform.
        cache: file that keeps the statistics, of the checkpoint with the digest `identity`. Where it cannot be written,
            as in a run of somebody else, a warning says so.
    """
    iterate_spectral_norm(generator, iterations=30)
    fold_spectral_norm(generator).requires_grad_(False)
    norms = {name: child for name, child in generator.named_modules() if isinstance(child, BatchNorm)}
    statistics = _read_cache(cache, identity)
    if statistics is None:
        statistics = standing_statistics(generator, norms, weights)
        if cache is not None:
            _write_cache(cache, save(statistics, {"checkpoint": identity}))
    for name, norm in norms.items():
        norm.running_mean.copy_(statistics[f"{name}.mean"])
        norm.running_var.copy_(statistics[f"{name}.variance"])
    return generator.eval()


def _read_cache(cache: Path | None, identity: str) -> dict[str, Tensor] | None:
    """The statistics kept for a checkpoint; None where there are none, or those of another checkpoint of this name."""
    if cache is None or not cache.is_file():
        return None
    content = cache.read_bytes()
    try:
        header = int.from_bytes(content[:8], "little")
        return load(content) if identity.encode() in content[8 : 8 + header] else None
    except SafetensorError:
        return None


def _write_cache(cache: Path, content: bytes) -> None:
    try:
        make_parent(cache)
        write_atomically(cache, content)
    except UserError as error:
        if rank() == 0:
            text = f"warning: {error}; the standing statistics are not kept, the next command computes them again"
            print(text, file=sys.stderr, flush=True)


@torch.no_grad()
def standing_statistics(
    generator: Generator, norms: dict[str, BatchNorm], weights: list[float] | None
) -> dict[str, Tensor]:
    """Mean and variance of the input of every batch norm over many generated samples: `NAME.mean`, `NAME.variance`."""
    blocks = -(-max(SAMPLES[0], SAMPLES[1] * generator.classes) // BLOCK)
    sums = {name: torch.zeros(2, norm.num_features, dtype=torch.float64) for name, norm in norms.items()}
    hooks = [norm.register_forward_pre_hook(_collector(sums[name])) for name, norm in norms.items()]
    device = generator.device
    distribution = torch.ones(generator.classes) if weights is None else torch.tensor(weights)
    generator.train()
    for block in range(blocks):
        draw = seeds.generator("cpu", "standing statistics", block)
        z = torch.randn(BLOCK, generator.z_dim, generator=draw)
        labels = torch.multinomial(distribution, BLOCK, replacement=True, generator=draw)
        generator(z.to(device), labels.to(device))
    for hook in hooks:
        hook.remove()
    statistics = {}
    for name, total in sums.items():
        mean, square = total / blocks
        statistics[f"{name}.mean"], statistics[f"{name}.variance"] = mean.float(), (square - mean**2).float()
    return statistics


def _collector(total: Tensor) -> Any:
    """A hook that adds a block's mean and mean square, in float64 on the host: some accelerators have no float64."""

    def collect(_: nn.Module, inputs: tuple[Tensor]) -> None:
        mean, variance = (moment.cpu().double() for moment in moments(inputs[0]))
        total[0] += mean
        total[1] += variance + mean**2

    return collect
