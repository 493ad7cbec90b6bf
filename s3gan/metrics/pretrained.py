"""Detectors that a user brings by path: the network of FID, DINOv2, or any encoder.

Each fixes how pictures are resized and scaled, which is part of its protocol, and is known by the SHA-256 of its
weights. A score is called FID, KID or IS only where the weights are those of FID, byte for byte.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import to_float
from s3gan.metrics.detector import OWN_SIZE, Detector, DetectorName, Protocol
from s3gan.metrics.labelled import digest
from selfsup.encoders.loading import load_encoder
from selfsup.encoders.resnet import Encoder

BLOCK = 50  # of large networks on large pictures
FID_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"  # NVIDIA's inception-2015-12-05.pt
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation of its pixels in [0, 1]


def open_detector(name: DetectorName, weights: str, *, channels: int, size: int, device: torch.device) -> Detector:
    """The detector `name` (not `classifier`, which is made of the data) from the path `weights`.

    Args:
        channels, size: of the pictures that it will see.

    Raises:
        UserError: nothing to load there, or not what `name` says.
    """
    if name is DetectorName.encoder:
        return open_encoder(weights, channels, size, device)
    if not Path(weights).is_file():
        raise UserError(f"detector_weights={weights!r}: no such file (detector={name.name} takes a TorchScript file)")
    return {DetectorName.inception: open_inception, DetectorName.dinov2: open_dinov2}[name](weights, device)


def open_encoder(weights: str, channels: int, size: int, device: torch.device) -> Detector:
    """Whatever `load_encoder` takes: a run directory of selfsup.pretrain, its safetensors, or TorchScript."""
    encoder, _ = load_encoder(weights, channels, device, size=size)
    if isinstance(encoder, Encoder):  # one name for a run directory and the file of the same weights
        sha256 = digest(*(tensor.cpu().numpy() for tensor in encoder.state_dict().values()))
    else:
        sha256 = _sha256(weights)
    protocol = Protocol(DetectorName.encoder.name, sha256, OWN_SIZE)
    return Detector(protocol, lambda images: encoder(to_float(images, device)))


def open_inception(weights: str, device: torch.device) -> Detector:
    """The network of FID (Heusel et al. 2017): Inception v3 of 5 December 2015 as NVIDIA's TorchScript translation.

    The file holds TensorFlow's own resizing to 299 px (bilinear, its old alignment) and the scale (x - 128) / 128.
    """
    sha256 = _sha256(weights)
    if sha256 != FID_SHA256:
        raise UserError(
            f"detector_weights={weights!r}: its SHA-256 is {sha256}, expected {FID_SHA256}, that of NVIDIA's "
            "inception-2015-12-05.pt: scores of other weights are not FID (detector=encoder takes any network)"
        )
    script = _load(weights, device)

    def network(images: Tensor) -> Tensor:
        features: Tensor = script(_colour(images), return_features=True)
        return features

    protocol = Protocol(DetectorName.inception.name, sha256, "RGB in [0, 255], resized to 299 px inside the network")
    return Detector(protocol, network, BLOCK, script.output.weight.detach().float().cpu().numpy())


def open_dinov2(weights: str, device: torch.device) -> Detector:
    """DINOv2 ViT-L/14 (Oquab et al. 2023) as TorchScript that takes (n, 3, 224, 224) to (n, 1024), for the distance of
    Stein et al. 2023 (arXiv 2306.04675). Pictures are resized as in EDM2's code: bicubic with antialiasing.
    """
    script = _load(weights, device)
    shapes = {name: tuple(tensor.shape) for name, tensor in script.state_dict().items()}
    expected = {"cls_token": (1, 1, 1024), "patch_embed.proj.weight": (1024, 3, 14, 14)}
    if any(shapes.get(name) != shape for name, shape in expected.items()) or "register_tokens" in shapes:
        raise UserError(
            f"detector_weights={weights!r}: expected TorchScript of DINOv2 ViT-L/14 without registers, whose state has "
            f"{expected} (detector=encoder takes any network)"
        )
    mean, spread = (torch.tensor(values, device=device)[:, None, None] for values in IMAGENET)

    def network(images: Tensor) -> Tensor:
        resized = F.interpolate(_colour(images).float(), (224, 224), mode="bicubic", antialias=True)
        features: Tensor = script((resized / 255 - mean) / spread)
        return features

    what = "RGB, bicubic with antialiasing to 224 px, ImageNet's mean and deviation"
    return Detector(Protocol(DetectorName.dinov2.name, _sha256(weights), what), network, BLOCK)


def _load(path: str, device: torch.device) -> torch.jit.ScriptModule:
    try:
        return torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"detector_weights={path!r}: expected a TorchScript file") from error


def _colour(images: Tensor) -> Tensor:
    """(n, 1 or 3, H, W) -> (n, 3, H, W)."""
    return images.expand(-1, 3, -1, -1).contiguous()


def _sha256(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
