"""A trained generator, ready to draw from, and the discriminator it was trained against, ready to score images."""

from pathlib import Path
from typing import Any

import torch

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from cluster_jobs.training.checkpoint import CheckpointStore
from cluster_jobs.training.run import load_run
from s3gan.inference.network_file import build_discriminator, build_generator, read_network
from s3gan.inference.standing_statistics import settle
from s3gan.networks import Discriminator, Generator
from s3gan.networks.layers import fold_spectral_norm, iterate_spectral_norm


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
