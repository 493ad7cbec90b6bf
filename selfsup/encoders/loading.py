"""Saves encoders, and loads them from a run, a safetensors file or a user's TorchScript file."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_atomically
from cluster_jobs.training.run import load_run
from selfsup.encoders.resnet import Encoder, build_encoder

ENCODER_FILE = "encoder.safetensors"  # in a pretraining run's directory
CLASSIFIER_FILE = "classifier.safetensors"  # in a classifier run's directory


class ScriptedEncoder(nn.Module):
    """A user's TorchScript encoder: feature maps are averaged, grey images are repeated to three channels if needed."""

    def __init__(self, script: Callable[[Tensor], Tensor], repeat: int, num_features: int) -> None:
        super().__init__()
        self.script, self.repeat, self.num_features = script, repeat, num_features

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32 in [-1, 1] -> (N, num_features) float32."""
        features = self.script(x.repeat(1, self.repeat, 1, 1))
        return (features.mean((2, 3)) if features.ndim == 4 else features).float()


def save_encoder(path: Path, encoder: Encoder) -> None:
    """Writes the encoder as safetensors whose metadata (name, channels, width) rebuild it. Atomic."""
    save_network(path, encoder, encoder)


def save_network(path: Path, network: nn.Module, encoder: Encoder, **metadata: str) -> None:
    """Writes any network around an encoder as safetensors, with the metadata that rebuild the encoder. Atomic."""
    described = {"name": encoder.name, "channels": str(encoder.channels), "width": str(encoder.width), **metadata}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(path, serialise(tensors, described))


def read_network(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata of a file of `save_network`.

    Raises:
        UserError: the file is missing, torn, or has no metadata that rebuild the encoder.
    """
    try:
        with safe_open(path, "pt") as stored:
            metadata = stored.metadata() or {}
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{str(path)!r}: unreadable safetensors file ({error})") from error
    if not {"name", "channels", "width"} <= set(metadata):
        raise UserError(f"{str(path)!r}: its metadata lacks name, channels or width, so the network cannot be rebuilt")
    return state, metadata


def load_encoder(
    path: str | Path, channels: int | None, device: torch.device | str, *, size: int = 32
) -> tuple[Encoder | ScriptedEncoder, str]:
    """An encoder in evaluation mode, and a one-line description.

    Args:
        path: the run directory of selfsup.pretrain or of a classifier, a safetensors file that either wrote, or a
            TorchScript file that maps (N, C, H, W) in [-1, 1] to (N, F) features or (N, F, h, w) maps.
        channels: of the images it will see; None takes the encoder's own.
        size: of the images, to try out a TorchScript encoder.

    Raises:
        UserError: there is no encoder, or it does not fit.
    """
    path = Path(path)
    encoder: Encoder | ScriptedEncoder
    if path.is_dir() and (path / CLASSIFIER_FILE).is_file():
        encoder, description = _from_file(path / CLASSIFIER_FILE)
    elif path.is_dir():
        encoder, description = _from_run(path)
    elif not path.is_file():
        raise UserError(f"encoder={str(path)!r}: no such run directory or file")
    elif path.suffix == ".safetensors":
        encoder, description = _from_file(path)
    else:
        encoder, description = _from_script(path, channels or 3, size)
    if channels is not None and isinstance(encoder, Encoder) and encoder.channels != channels:
        raise UserError(
            f"encoder={str(path)!r} was trained on {encoder.channels} channels, the pictures have {channels}"
        )
    return encoder.to(device).eval().requires_grad_(False), description


def _from_run(directory: Path) -> tuple[Encoder, str]:
    config, state, nimg = load_run(directory)
    if "ema" not in state or not {"encoder", "width"} <= set(config):
        raise UserError(f"encoder={str(directory)!r}: expected a run directory of selfsup.pretrain or of a classifier")
    weights = state["ema"]
    metadata = {
        "name": config["encoder"],
        "channels": str(weights["encoder.stem.weight"].shape[1]),
        "width": str(config["width"]),
    }
    return rebuild(weights, metadata, directory), f"{config['encoder']} of {directory} at {nimg} images"


def _from_file(path: Path) -> tuple[Encoder, str]:
    state, metadata = read_network(path)
    return rebuild(state, metadata, path), f"{metadata['name']} of {path}"


def rebuild(state: dict[str, Tensor], metadata: dict[str, str], origin: Path) -> Encoder:
    """The encoder in a state, which holds its tensors alone or, among others, under the prefix ``encoder.``.

    Raises:
        UserError: the tensors are not exactly those of the encoder.
    """
    encoder = build_encoder(metadata["name"], int(metadata["channels"]), int(metadata["width"]))
    prefix = "encoder."
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    try:
        encoder.load_state_dict(inside or state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{str(origin)!r}: the weights are not those of {metadata['name']} ({reason})") from error
    return encoder


def _from_script(path: Path, channels: int, size: int) -> tuple[ScriptedEncoder, str]:
    try:
        script = torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"encoder={str(path)!r}: expected a run directory, .safetensors or TorchScript") from error
    images, reason = torch.zeros(2, channels, size, size), ""
    for repeat in (1, 3) if channels == 1 else (1,):
        try:
            features = ScriptedEncoder(script, repeat, 0)(images)
        except RuntimeError as error:
            reason = reason or str(error).strip().splitlines()[-1]
            continue
        if features.ndim == 2 and len(features) == 2:
            grey = ", grey repeated to three channels" if repeat == 3 else ""
            return ScriptedEncoder(script, repeat, features.shape[1]), f"TorchScript {path}{grey}"
        reason = f"it returned the shape {tuple(features.shape)}, expected (2, F)"
    raise UserError(f"encoder={str(path)!r}: cannot take pictures of shape {tuple(images.shape)}: {reason}")


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights. That of a safetensors file also depends on the order of its metadata."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
