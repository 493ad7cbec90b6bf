"""Loads a trained refiner and applies it to images, with results that do not depend on batches or processes."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cluster_jobs.cli.config import to_dict
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from cluster_jobs.data.images import height_and_width, shape_text, to_float, to_uint8
from cluster_jobs.data.shard_writer import stored_size
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.run import load_run
from selfsup.encoders.loading import weights_digest
from simgan.networks.refiner import Refiner

BLOCK = 100  # images per forward pass, always (the last is padded): results depend on the size of a batch
SHAPE = ("width", "blocks", "stem", "fold", "noise")


def describe_network(config: Any, synthetic: Shards, real: Shards, encoder: nn.Module | None) -> dict[str, Any]:
    """The content of ``network.json``: R's architecture and training data; ``encoder`` is that of ψ."""
    keys = to_dict(config)
    return {
        "task": keys["task"],
        "size": stored_size((synthetic.height, synthetic.width)),
        "channels": synthetic.channels,
        **{name: keys[name] for name in SHAPE},
        "synthetic_fingerprint": synthetic.fingerprint,
        "real_fingerprint": real.fingerprint,
        "psi_encoder": weights_digest(encoder) if encoder else None,
    }


def load_refiner(run: str, checkpoint: str, device: torch.device) -> tuple[Refiner, dict[str, Any]]:
    """The averaged refiner of a run, and a dict that identifies it: ``nimg``, ``weights`` (SHA-256) and ``network``.

    Raises:
        UserError: no run of simgan.train, no valid checkpoint, or one of another network.
    """
    _, state, nimg = load_run(run, checkpoint)
    network = {"noise": 0} | read_json(Path(run) / "network.json")  # runs of versions before the key noise
    if "refiner_ema" not in state:
        raise UserError(f"run={run!r} holds {', '.join(state)}: expected a run of simgan.train")
    refiner = Refiner(network["channels"], **{name: network[name] for name in SHAPE})
    weights = state["refiner_ema"]
    try:
        refiner.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"run={run!r}: network.json does not fit the checkpoint ({error})") from error
    digest = hashlib.sha256(b"".join(weights[name].numpy().tobytes() for name in sorted(weights))).hexdigest()
    info = {"nimg": nimg, "weights": digest, "network": network}
    refiner = refiner.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return refiner.eval().requires_grad_(False), info


def check_images(synthetic: Shards, network: dict[str, Any]) -> None:
    """Raises UserError if the refiner was trained on images of another shape."""
    size = network["size"]
    trained = network["channels"], *height_and_width(size if isinstance(size, int) else tuple(size))
    if synthetic.shape != trained:
        raise UserError(
            f"{synthetic.directory}: images of {shape_text(synthetic.shape)} (channels × height × width), "
            f"the refiner was trained on {shape_text(trained)}"
        )


@torch.no_grad()
def refine_images(refiner: Refiner, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Refines uint8 (N, C, H, W), any N, in blocks of one size; returns uint8 of the same shape."""
    refined = np.empty_like(images)
    for start in range(0, len(images), BLOCK):
        part = images[start : start + BLOCK]
        block = np.zeros((BLOCK, *images.shape[1:]), np.uint8)
        block[: len(part)] = part
        values = refiner(to_float(torch.from_numpy(block), device))
        refined[start : start + BLOCK] = to_uint8(values).cpu().numpy()[: len(part)]
    return refined
