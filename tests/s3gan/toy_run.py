"""A run directory as s3gan.train leaves it, with untrained networks: for what reads runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from cluster_jobs.core.files import read_json, write_atomically, write_json
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.checkpoint import CheckpointStore
from cluster_jobs.training.image_clusters import write_clusters, write_tables
from s3gan.networks import HeadPlan
from s3gan.networks.biggan import LIGHT, BigGanDiscriminator, BigGanGenerator

SIZE, WIDTH = 32, 2


def make_run(
    directory: Path,
    names: Sequence[str] = ("cat", "dog", "éléphant blanc"),
    *,
    channels: int = 1,
    counts: Sequence[float] = (),
    table: dict[str, Any] | None = None,
    nimg: int = 100,
) -> Path:
    """A run whose classes are `names`, of `counts` real images each, trained with the label table `table`."""
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / "config.yaml", yaml.safe_dump({"method": "supervised", "seed": 0}).encode())
    network = {
        "network": "biggan_light",
        "g_spectral_norm": True,
        "d_spectral_norm": True,
        "heads": {"projection": True, "rotation": False, "predictor": False, "soft_prediction": False},
        "size": SIZE,
        "channels": channels,
        "width": WIDTH,
        "z_dim": LIGHT[SIZE].z_dim,
        "classes": len(names),
        "class_names": list(names),
        "class_counts": list(counts) or [10] * len(names),
        "fake_weights": None,
        "data_fingerprint": "f" * 64,
        "label_table": table or {},
    }
    write_json(directory / "network.json", network)
    train_further(directory, channels, len(names), nimg)
    return directory


def train_further(
    directory: Path, channels: int, classes: int, nimg: int, clusters: dict[str, Any] | None = None
) -> None:
    """Adds the checkpoint of `nimg` images seen; another number makes another generator. `clusters` are those that it
    names, of a run that re-clusters."""
    torch.manual_seed(nimg)
    state = {
        "generator_ema": BigGanGenerator(LIGHT[32], channels, classes, WIDTH).state_dict(),
        "discriminator": BigGanDiscriminator(LIGHT[32], channels, classes, WIDTH, HeadPlan()).state_dict(),
    }
    if clusters is not None:
        state["clusters"] = clusters
    CheckpointStore(directory / "checkpoints").save(state, nimg)


def recluster(directory: Path, shards: Shards, labels: np.ndarray, nimg: int) -> dict[str, Any]:
    """Writes clusters (samples,) found at `nimg` images, and their table; returns what a checkpoint says of them."""
    names = read_json(directory / "network.json")["class_names"]
    table = {"classes": names, "fingerprint": shards.fingerprint, "method": "kmeans", "nimg": nimg}
    counts = np.bincount(labels, minlength=len(names))
    facts = {"class_counts": counts.tolist(), "fake_weights": (counts / counts.sum()).tolist(), "label_table": table}
    write_clusters(directory, nimg, labels.astype(np.int32), facts)
    write_tables(directory, shards)
    return {"nimg": nimg, "sha256": read_json(directory / "clusters" / f"{nimg:012d}.json")["sha256"]}


def draw(generator: torch.nn.Module, z_dim: int = LIGHT[SIZE].z_dim) -> torch.Tensor:
    """Six images of three classes, from always the same noise."""
    torch.manual_seed(5)
    with torch.no_grad():
        images: torch.Tensor = generator(torch.randn(6, z_dim), torch.tensor([0, 1, 2, 0, 1, 2]))
    return images
