"""Residual encoders by name, built from a table of blocks, and loading them back from what a user has.

He et al. 2015 (basic blocks) and 2016 (pre-activated bottlenecks), with a 3x3 stem: at 32 px there is nothing to throw
away early, except in the compact ones, whose stem halves the picture so that a CPU trains them in minutes.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.nn import functional as F

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_atomically
from cluster_jobs.core.seeds import generator
from cluster_jobs.distributed.batchnorm import BatchNorm
from cluster_jobs.training.run import load_run

ENCODER_FILE = "encoder.safetensors"  # in a pretraining run's directory
CLASSIFIER_FILE = "classifier.safetensors"  # in a classifier run's directory


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2015, figure 2)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride)
        self.norm1 = BatchNorm(width)
        self.conv2 = _conv(width, width, 3)
        self.norm2 = BatchNorm(width)
        same = stride == 1 and inputs == width
        self.shortcut = nn.Identity() if same else nn.Sequential(_conv(inputs, width, 1, stride), BatchNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(h)) + self.shortcut(x))


class PreactivatedBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each after its norm and ReLU (He et al. 2016, figure 1b)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.norm1 = BatchNorm(inputs)
        self.conv1 = _conv(inputs, width, 1)
        self.norm2 = BatchNorm(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.norm3 = BatchNorm(width)
        self.conv3 = _conv(width, outputs, 1)
        self.shortcut = None if stride == 1 and inputs == outputs else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(h)
        h = self.conv2(F.relu(self.norm2(self.conv1(h))))
        return shortcut + self.conv3(F.relu(self.norm3(h)))


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


@dataclass(frozen=True)
class Architecture:
    """A row of the table: stage s has ``depths[s]`` blocks of width ``width * 2**s``; all but the first halve."""

    block: type[BasicBlock] | type[PreactivatedBottleneck]
    depths: tuple[int, ...]
    stem_stride: int


ARCHITECTURES = {
    "resnet8": Architecture(BasicBlock, (1, 1, 1), stem_stride=2),
    "resnet14": Architecture(BasicBlock, (2, 2, 2), stem_stride=2),
    "resnet18": Architecture(BasicBlock, (2, 2, 2, 2), stem_stride=1),
    "resnet50v2": Architecture(PreactivatedBottleneck, (3, 4, 6, 3), stem_stride=1),
}


class Encoder(nn.Module):
    """A residual network up to its pooled features. Its pictures may have any size from 8 px on."""

    def __init__(self, name: str, channels: int, width: int) -> None:
        super().__init__()
        self.name, self.channels, self.width = name, channels, width
        table = ARCHITECTURES[name]
        preactivated = table.block is PreactivatedBottleneck
        self.stem = _conv(channels, width, 3, table.stem_stride)
        self.stem_norm = nn.Identity() if preactivated else nn.Sequential(BatchNorm(width), nn.ReLU())
        blocks, features = [], width
        for stage, depth in enumerate(table.depths):
            for place in range(depth):
                stride = 2 if stage > 0 and place == 0 else 1
                blocks.append(table.block(features, width * 2**stage, stride))
                features = width * 2**stage * table.block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.last_norm = nn.Sequential(BatchNorm(features), nn.ReLU()) if preactivated else nn.Identity()
        self.num_features = features

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32 in [-1, 1] -> (N, num_features)."""
        return self.last_norm(self.blocks(self.stem_norm(self.stem(x)))).mean((2, 3))


def build_encoder(name: str, channels: int, width: int = 32, *, seed: int = 0) -> Encoder:
    """A freshly initialised encoder.

    Raises:
        UserError: an unknown name.
    """
    if name not in ARCHITECTURES:
        raise UserError(f"encoder {name!r}: expected one of {', '.join(ARCHITECTURES)}")
    if width < 1:
        raise UserError(f"width={width}: expected a positive number of channels")
    encoder = Encoder(name, channels, width)
    initialise(encoder, seed, "encoder")
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the faster layout of convolutions
    return encoder


def initialise(module: nn.Module, *key: int | str) -> None:
    """Draws the weights of convolutions (He et al. 2015) and linear maps, each keyed by its name."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Conv2d | nn.Linear):
            draw = generator("cpu", *key, name)
            if isinstance(child, nn.Conv2d):
                nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu", generator=draw)
            else:
                nn.init.normal_(child.weight, std=0.01, generator=draw)
            if child.bias is not None:
                nn.init.zeros_(child.bias)


def to_input(images: Tensor, device: torch.device | str) -> Tensor:
    """uint8 pictures (N, C, H, W) as networks see them: float32 in [-1, 1] on the device."""
    return images.to(device, non_blocking=True).float() / 127.5 - 1


class ScriptedEncoder(nn.Module):
    """A user's TorchScript backbone; maps are pooled, and grey pictures repeated where it wants three channels."""

    def __init__(self, script: Callable[[Tensor], Tensor], repeat: int, num_features: int) -> None:
        super().__init__()
        self.script, self.repeat, self.num_features = script, repeat, num_features

    def forward(self, x: Tensor) -> Tensor:
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
    """An encoder in evaluation mode, and a line that says what it is.

    Args:
        path: the run directory of selfsup.pretrain or of a classifier, a safetensors file that either wrote, or a
            TorchScript file that maps (N, C, H, W) in [-1, 1] to (N, F) features or (N, F, h, w) maps.
        channels: of the pictures it will see; None takes the encoder's own.
        size: of the pictures, to try out a TorchScript encoder.

    Raises:
        UserError: nothing to load there, or it does not fit.
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
    """The encoder inside a state, by itself or under the prefix ``encoder.``; every tensor must find its place.

    Raises:
        UserError: it does not cover the encoder exactly.
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
    picture, reason = torch.zeros(2, channels, size, size), ""
    for repeat in (1, 3) if channels == 1 else (1,):
        try:
            features = ScriptedEncoder(script, repeat, 0)(picture)
        except RuntimeError as error:
            reason = reason or str(error).strip().splitlines()[-1]
            continue
        if features.ndim == 2 and len(features) == 2:
            grey = ", grey repeated to three channels" if repeat == 3 else ""
            return ScriptedEncoder(script, repeat, features.shape[1]), f"TorchScript {path}{grey}"
        reason = f"it returned the shape {tuple(features.shape)}, expected (2, F)"
    raise UserError(f"encoder={str(path)!r}: cannot take pictures of shape {tuple(picture.shape)}: {reason}")


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights. That of a safetensors file also depends on the order of its metadata."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
