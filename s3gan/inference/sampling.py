"""Samples of a generator that depend on their index alone: the same images whatever the world size or order of
work.

Sample i of seed s has the noise keyed by (s, i), its further attempts (where filters reject) by (s, i, attempt).
Images are made in blocks of one fixed size, the last one padded, because a convolution may round differently in a batch
of another size.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cluster_jobs.core import seeds
from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import to_uint8

SMALL_BLOCK, LARGE_BLOCK = 20, 100  # both divide the 1000 samples of a shard
LARGE_SIZE = 128  # px; larger images are made in small blocks, which must fit in the memory of any device


class Balance(Enum):
    """How many samples each class gets: all the same, or in proportion to the label table that G was trained with."""

    uniform = "uniform"
    table = "table"


def block_size(size: int) -> int:
    """Images that are made at once, for images of `size` px."""
    return LARGE_BLOCK if size <= LARGE_SIZE else SMALL_BLOCK


def class_weights(network: dict[str, Any], balance: Balance) -> np.ndarray:
    """(classes,) float64 that sum to 1, from a run's network.json. Classes without a real image, which no training had
    fakes of, get none."""
    classes = network["classes"]
    counts = np.asarray(network["class_counts"], float)
    if balance is Balance.uniform:
        counts = (counts > 0).astype(float)
    if counts.shape != (classes,) or counts.min() < 0 or counts.sum() <= 0:
        raise UserError(f"balance={balance.name}: the run's class counts are {counts.tolist()}, expected some above 0")
    return counts / counts.sum()


def label_table(network: dict[str, Any]) -> dict[str, Any]:
    """Metadata and path of the label table that a run was trained with, from its network.json.

    Only the methods whose classes mean nothing (one class, random ones) train without; theirs is method `none`.
    """
    return network["label_table"] or {"method": "none"}


def plan_labels(count: int, weights: np.ndarray, seed: int) -> np.ndarray:
    """The class of each of `count` samples, int32: exact shares (largest remainders first), in keyed random order."""
    exact = count * weights
    quotas = np.floor(exact + 1e-9).astype(np.int64)
    left_over = np.argsort(quotas - exact, kind="stable")[: count - quotas.sum()]
    quotas[left_over] += 1
    return order_labels(quotas, seed)


def order_labels(counts: np.ndarray, seed: int) -> np.ndarray:
    """As many labels of each class as `counts` (classes,) int64 says, int32, in keyed random order."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return np.random.Generator(np.random.PCG64(seeds.derive_seed(seed, "classes"))).permutation(labels)


def draw_noise(
    seed: int, indices: Sequence[int], z_dim: int, truncation: float = 0.0, attempts: Sequence[int] | None = None
) -> Tensor:
    """(n, z_dim) float32 ~ N(0, 1), one keyed draw per index, on the host.

    With truncation t > 0 every value is drawn from the normal distribution cut off at ±t (Brock et al. 2019, section
    3.1; they draw again what falls outside, this inverts the distribution function, which is the same law). 0 cuts
    nothing off. `attempts` (from 0, one per index) asks for an index's further draws.
    """
    rows = [torch.empty(z_dim, dtype=torch.float64) for _ in indices]
    for row, index, attempt in zip(rows, indices, attempts or [0] * len(indices), strict=True):
        generator = seeds.generator("cpu", seed, "noise", index, *([attempt] if attempt else []))
        if truncation > 0:
            low = torch.special.ndtr(torch.tensor(-truncation, dtype=torch.float64))
            torch.special.ndtri(low + row.uniform_(generator=generator) * (1 - 2 * low), out=row)
        else:
            row.normal_(generator=generator)
    return torch.stack(rows).float()


def make_images(generator: nn.Module, noise: Tensor, labels: Tensor, block: int, device: torch.device) -> np.ndarray:
    """One block of images, uint8 (n, C, H, W), from noise (n, z_dim) and conditions of shape (n, ...), n <= block."""
    return make_block(generator, noise, labels, block, device)[0][: len(labels)].cpu().numpy()


@torch.no_grad()
def make_block(
    generator: nn.Module, noise: Tensor, labels: Tensor, block: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """As `make_images`, on the device and with the padding: images uint8 (block, C, H, W) and their conditions."""
    padding = block - len(labels)
    assert padding >= 0
    noise = torch.cat([noise, noise.new_zeros(padding, noise.shape[1])]).to(device)
    labels = torch.cat([labels, labels.new_zeros(padding, *labels.shape[1:])]).to(device)
    return to_uint8(generator(noise, labels)), labels
