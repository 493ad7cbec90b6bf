"""Labelled images that a classifier is trained or tested on, named by their content so that results can be cached."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.seeds import derive_seed
from cluster_jobs.data.shards import Shards
from selfsup.labelling.classifier import Pictures, ShardPictures


@dataclass(frozen=True)
class Labelled:
    """Pictures with labels (N,) int64 >= 0. `identity` differs where a picture or a label differs."""

    images: Pictures
    labels: np.ndarray
    identity: str

    def __len__(self) -> int:
        return len(self.labels)


class JoinedPictures:
    """The pictures of two sets, one after the other."""

    def __init__(self, first: Pictures, second: Pictures) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, indices: np.ndarray) -> Tensor:
        in_first = indices < len(self.first)
        blocks = [self.first[indices[in_first]], self.second[indices[~in_first] - len(self.first)]]
        order = np.argsort(np.concatenate([np.flatnonzero(in_first), np.flatnonzero(~in_first)]))
        return torch.cat([torch.as_tensor(block) for block in blocks])[torch.from_numpy(order)]


def from_arrays(images: np.ndarray, labels: np.ndarray) -> Labelled:
    """Images uint8 (N, C, H, W) with labels (N,); a negative label drops its image."""
    kept = np.flatnonzero(labels >= 0)
    images, labels = images[kept], labels[kept].astype(np.int64)
    return Labelled(images, labels, digest(images, labels))


def from_shards(shards: Shards, labels: np.ndarray) -> Labelled:
    """The samples of shards whose label (count,) is not negative; their pictures stay on disk."""
    if len(labels) != len(shards):
        raise UserError(f"{shards.directory}: {len(labels)} labels for {len(shards)} samples")
    indices = np.flatnonzero(labels >= 0)
    chosen = labels[indices].astype(np.int64)
    identity = _name(shards.fingerprint, digest(indices.astype(np.int64), chosen))
    return Labelled(ShardPictures(shards, indices), chosen, identity)


def joined(first: Labelled, second: Labelled) -> Labelled:
    """Both sets, one after the other."""
    labels = np.concatenate([first.labels, second.labels])
    return Labelled(JoinedPictures(first.images, second.images), labels, _name(first.identity, second.identity))


def relabelled(data: Labelled, labels: np.ndarray) -> Labelled:
    """The same pictures with other labels (N,); a negative label drops its picture."""
    kept = np.flatnonzero(labels >= 0)
    chosen = labels[kept].astype(np.int64)
    return Labelled(PictureSubset(data.images, kept), chosen, _name(data.identity, digest(kept, chosen)))


class PictureSubset:
    """The pictures at `indices` of a set."""

    def __init__(self, pictures: Pictures, indices: np.ndarray) -> None:
        self.pictures, self.indices = pictures, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, indices: np.ndarray) -> Tensor:
        return torch.as_tensor(self.pictures[self.indices[indices]])


def choose(count: int, limit: int, seed: int) -> np.ndarray:
    """At most `limit` of range(count) (0: all), chosen at random by a key, ascending int64."""
    if not limit or count <= limit:
        return np.arange(count)
    random = np.random.Generator(np.random.PCG64(derive_seed(seed, "choose", count)))
    return np.sort(random.choice(count, limit, replace=False))


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 of arrays with their shapes and types."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.shape} {array.dtype}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def _name(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
