"""The real images that a generator's samples are shown next to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.label_table import open_merged
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores.base import child
from cluster_jobs.data.stream import Reader
from cluster_jobs.training.image_clusters import clusters_of
from s3gan.inference.network_file import read_network
from s3gan.metrics.labelled import choose


@dataclass(frozen=True)
class RealImages:
    """Training images, and the class of each by the labels that a checkpoint was trained on; no hidden one is read."""

    shards: Shards
    trained_on: bool  # whether the run was trained on these very images
    labels: np.ndarray | None  # (count,) int32, -1 without one; None: nobody knows
    unknown: str  # why `labels` is None
    seed: int

    def some(self, limit: int) -> np.ndarray:
        """Indices of at most `limit` images (0: all), a keyed choice, ascending int64."""
        return choose(len(self.shards), limit, self.seed)

    def some_of_class(self, number: int, limit: int) -> np.ndarray:
        """The same among the images of a class."""
        assert self.labels is not None
        members = np.flatnonzero(self.labels == number)
        return members[choose(len(members), limit, self.seed)]

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Images uint8 (n, C, H, W)."""
        return Reader(self.shards, cache=False).read(indices, 0).images.numpy()

    @property
    def described(self) -> str:
        name = "training images" if self.trained_on else "images (not those that the run was trained on)"
        return f"{len(self.shards):,} {name} of {self.shards.directory}"


def open_real(data: str, run: Path, checkpoint: Path, seed: int) -> RealImages:
    """The part `train` of `data`, to be shown next to samples of a run's checkpoint.

    Raises:
        UserError: it is missing, its images have another size or other channels than the run's, or the clusters that
            the checkpoint was trained with are gone.
    """
    network = read_network(run, checkpoint)
    shards = Shards(child(data, "train"))
    if (shards.size, shards.channels) != (network["size"], network["channels"]):
        raise UserError(
            f"{run} makes images of {network['size']} px with {network['channels']} channels, "
            f"{shards.directory} holds {shards.size} px with {shards.channels}"
        )
    trained_on = shards.fingerprint == network["data_fingerprint"]
    labels, unknown = None, ""
    if not trained_on:
        unknown = "the run was trained on other images than these"
    elif network["classes"] == 1:
        labels = np.zeros(len(shards), np.int32)
    elif (clusters := clusters_of(run, checkpoint)) is not None:
        labels = clusters
    elif (run / "labels.i32").is_file():
        labels = open_merged(run / "labels.i32")
    else:
        unknown = "the run keeps no label of its training images"
    return RealImages(shards, trained_on, labels, unknown, seed)
