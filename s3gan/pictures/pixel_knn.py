"""Exact nearest neighbours in pixel space: whole numbers throughout, so that no order of work changes a result."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

SLICE = 4096  # pixel values of an image at a time, which bounds the memory for large images


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """(N, M) int64 between the rows of uint8 (N, D) and (M, D).

    Matrix products of float64 hold whole numbers exactly up to 2^53, more than 10^11 values of a byte squared. Where
    the device has no float64 (mps) the host computes.
    """
    device = torch.device("cpu") if first.device.type == "mps" else first.device
    total = torch.zeros(len(first), len(second), dtype=torch.float64, device=device)
    for start in range(0, first.shape[1], SLICE):
        a, b = (side[:, start : start + SLICE].to(device, torch.float64) for side in (first, second))
        total += (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T)
    return total.long()


class Nearest:
    """The k nearest of all candidates seen, for each of the queries uint8 (N, D); mergeable.

    `distances` (N, k) int64 are squared and ascend along a row; `indices` (N, k) int64 name the candidates, and decide
    between equals. Entries that no candidate has taken yet hold the distance FAR and the index -1.
    """

    FAR = torch.iinfo(torch.int64).max

    def __init__(self, queries: Tensor, k: int) -> None:
        self.queries, self.k = queries, k
        self.distances = torch.full((len(queries), k), self.FAR)
        self.indices = torch.full((len(queries), k), -1)

    def see(self, candidates: Tensor, indices: Tensor) -> None:
        """Adds candidates uint8 (m, D) with their indices (m,) int64, ascending."""
        distances = squared_distances(self.queries, candidates).cpu()
        order = torch.arange(len(candidates))
        nearest = (distances * len(candidates) + order).sort(1).values[:, : self.k]  # the earlier of equals first
        self.add(nearest // len(candidates), indices[nearest % len(candidates)])

    def add(self, distances: Tensor, indices: Tensor) -> None:
        """Adds the result of another search, (N, any)."""
        distances, indices = torch.cat([self.distances, distances], 1), torch.cat([self.indices, indices], 1)
        by_index = indices.argsort(dim=1, stable=True)
        order = by_index.gather(1, distances.gather(1, by_index).argsort(dim=1, stable=True))[:, : self.k]
        self.distances, self.indices = distances.gather(1, order), indices.gather(1, order)


def search(queries: Tensor, k: int, chunks: Iterable[tuple[Tensor, Tensor]]) -> Nearest:
    """The k nearest among chunks of (candidates uint8 (m, D), indices (m,) int64), on the device of the queries."""
    nearest = Nearest(queries, k)
    for candidates, indices in chunks:
        nearest.see(candidates.to(queries.device), indices)
    return nearest
