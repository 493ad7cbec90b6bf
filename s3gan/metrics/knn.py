"""Nearest neighbours among feature vectors, in float64 and by blocks: no whole matrix of distances ever exists."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

BLOCK = 2**24  # distances that exist at once: 128 MiB of float64
COLUMNS = 2**15


def centred(*tables: np.ndarray | Tensor, device: torch.device | str = "cpu") -> list[Tensor]:
    """Feature tables (N, F) as float64 on the device (the host where it has no float64), less the mean of the first.

    Distances stay as they are, and |a|² + |b|² - 2 a·b rounds less where the features lie far from the origin.
    """
    device = "cpu" if torch.device(device).type == "mps" else device
    moved = [torch.as_tensor(table).to(device).double() for table in tables]
    centre = moved[0].mean(0)
    return [table - centre for table in moved]


def squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """(n, m) squared Euclidean distances of rows (n, F) and columns (m, F), both float64."""
    distances = torch.addmm(columns.pow(2).sum(1), rows, columns.T, alpha=-2)
    return distances.add_(rows.pow(2).sum(1)[:, None]).clamp_(min=0)


def blocks(rows: Tensor, columns: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Blocks of the matrix of squared distances: their rows, their columns and themselves, row after row."""
    width = min(COLUMNS, len(columns))
    height = max(1, BLOCK // width)
    for top in range(0, len(rows), height):
        for left in range(0, len(columns), width):
            across, down = slice(top, top + height), slice(left, left + width)
            yield across, down, squared_distances(rows[across], columns[down])


def nearest(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest points of each query: squared distances (n, k), ascending, and their indices (n, k) int64.

    A query that is one of the points is its own nearest.

    Raises:
        ValueError: there are fewer than k points.
    """
    if len(points) < k:
        raise ValueError(f"{len(points)} points have no {k} nearest")
    distances = queries.new_full((len(queries), k), torch.inf)
    indices = torch.zeros(len(queries), k, dtype=torch.int64, device=queries.device)
    for rows, columns, block in blocks(queries, points):
        smallest, positions = block.topk(min(k, block.shape[1]), largest=False)
        both = torch.cat([distances[rows], smallest], 1)
        among = torch.cat([indices[rows], positions + columns.start], 1)
        distances[rows], chosen = both.topk(k, largest=False)
        indices[rows] = among.gather(1, chosen)
    return distances, indices
