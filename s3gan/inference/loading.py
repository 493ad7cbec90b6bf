"""A trained generator, ready to draw from: averaged weights, standing statistics, spectral norm folded in. And the
discriminator that it was trained against, ready to score images.

Standing statistics (Brock et al. 2019, section 4.1): batch norm in evaluation uses the moments of many generated
batches. They are computed once a checkpoint, in fixed blocks with float64 sums, and kept in `RUN/standing/`.
"""

import io
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
from cluster_jobs.core.files import make_parent, read_json, write_atomically
from cluster_jobs.distributed.batchnorm import BatchNorm, moments
from cluster_jobs.training.checkpoint import CheckpointStore
from cluster_jobs.training.run import load_run
from s3gan.inference.cluster_files import changed_network
from s3gan.networks import NETWORKS, Discriminator, Generator, HeadPlan
from s3gan.networks.layers import fold_spectral_norm, iterate_spectral_norm

BLOCK = 64  # samples a block of the standing statistics
SAMPLES = 2048, 10  # at least so many, and so many for each class


def build_generator(network: dict[str, Any]) -> Generator:
    """An untrained generator as `network.json` describes it."""
    of = network["size"], network["channels"], network["classes"], network["width"]
    return NETWORKS[network["network"]].generator(*of, normalise=network["g_spectral_norm"], embedding_std=0)


def build_discriminator(network: dict[str, Any]) -> Discriminator:
    """An untrained discriminator as `network.json` describes it."""
    of = network["size"], network["channels"], network["classes"], network["width"]
    plan = HeadPlan(**network["heads"])
    return NETWORKS[network["network"]].discriminator(*of, plan, normalise=network["d_spectral_norm"])


def read_network(run: Path, checkpoint: Path | str | None = None) -> dict[str, Any]:
    """`RUN/network.json`: sizes, classes, their counts and the label table.

    In a run that re-clusters, counts, weights and table are those of the clusters that the checkpoint at this path was
    trained with, or the newest.

    Raises:
        UserError: there is no run of s3gan.train, or the checkpoint's clusters are gone.
    """
    if not (run / "network.json").is_file():
        raise UserError(f"run={str(run)!r}: expected a run directory of s3gan.train (it holds no network.json)")
    network = read_json(run / "network.json")
    if network.get("network") not in NETWORKS:
        raise UserError(
            f"{run / 'network.json'}: network {network.get('network')!r}, expected one of {', '.join(NETWORKS)} "
            "(the run was made by another version)"
        )
    return network | changed_network(run, None if checkpoint is None else Path(checkpoint))


def load_generator(
    run: Path | str, checkpoint: str = "last", device: torch.device | str = "cpu"
) -> tuple[Generator, dict[str, Any]]:
    """The averaged generator of a run in evaluation mode, the same on every rank.

    Args:
        checkpoint: `last`, `best`, or the path of a checkpoint.

    Returns:
        The generator, and `path`, `file`, `sha256` and `nimg` (images seen) of its checkpoint.

    Raises:
        UserError: no run of s3gan.train, no valid checkpoint, or one whose clusters are gone.
    """
    run = Path(run)
    read_network(run)  # says what is no run of s3gan.train
    _, state, nimg = load_run(run, checkpoint)
    path = _checkpoint_path(run, checkpoint, nimg)
    network = read_network(run, path)
    info = {
        "path": str(path),
        "file": path.name,
        "sha256": read_json(path.with_suffix(".json"))["sha256"],
        "nimg": nimg,
    }
    generator = build_generator(network)
    try:
        generator.load_state_dict(state["generator_ema"])
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path}: holds no generator of {str(run)!r} ({' '.join(str(error).split())[:200]})") from error
    settle(generator.to(device), network["fake_weights"], run / "standing" / path.name, info["sha256"])
    return generator, info


def load_discriminator(
    run: Path | str, checkpoint: str = "last", device: torch.device | str = "cpu"
) -> tuple[Discriminator, int]:
    """The discriminator of a run in evaluation form: spectral norms brought to convergence and folded into the weights,
    no gradients. It has no average and no batch norm.

    Args:
        checkpoint: `last`, `best`, or the path of a checkpoint.

    Returns:
        The discriminator, and the images seen by its checkpoint.

    Raises:
        UserError: no run of s3gan.train, or no valid checkpoint.
    """
    discriminator = build_discriminator(read_network(Path(run)))
    _, state, nimg = load_run(run, checkpoint)
    try:
        discriminator.load_state_dict(state["discriminator"])
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"run={str(run)!r}: checkpoint {nimg} holds no discriminator of it ({reason})") from error
    discriminator.to(device)
    iterate_spectral_norm(discriminator, iterations=30)
    fold_spectral_norm(discriminator).requires_grad_(False)
    return discriminator.eval(), nimg


def _checkpoint_path(run: Path, checkpoint: str, nimg: int) -> Path:
    store = CheckpointStore(run / "checkpoints")
    if checkpoint == "best":
        best = store.best()
        assert best is not None, "load_run found it"
        return best
    return Path(checkpoint) if checkpoint != "last" else store.directory / f"{nimg:012d}.safetensors"


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


def export_generator(run: Path | str, device: torch.device | str = "cpu") -> Path:
    """Writes `RUN/export/generator.pt`, TorchScript that needs nothing but torch.

    `torch.jit.load(path)(z, labels)` with z (N, z_dim) float32 ~ N(0, I) and labels (N,) int64 gives images
    (N, C, H, W) float32 in [-1, 1]; `RUN/network.json` has `z_dim` and the classes' names.
    It is on the CPU; `device` computes the standing statistics where the run keeps none of this checkpoint yet.
    """
    run = Path(run)
    generator = load_generator(run, device=device)[0].cpu()
    example = torch.zeros(2, generator.z_dim), torch.zeros(2, dtype=torch.int64)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(generator, example), buffer)
    path = run / "export" / "generator.pt"
    make_parent(path)
    write_atomically(path, buffer.getvalue())
    return path
