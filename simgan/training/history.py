"""The history of refined images (SimGAN, section 2.3, algorithm 1): D also trains on images of earlier refiners."""

from collections.abc import Callable
from typing import Any

import torch

from cluster_jobs.core.seeds import generator

Collective = Callable[[torch.Tensor], torch.Tensor]


def single_process(tensor: torch.Tensor) -> torch.Tensor:
    """Stands in for a collective in a single process: returns the tensor itself."""
    return tensor


class History:
    """A buffer of ``capacity`` refined images, sharded over ranks: slot s is stored on rank s modulo ``world``.

    A rank holds 4 · C · H · W · capacity / world bytes (25,600 gaze images: 197 MB in all). While the buffer fills,
    fresh images take the next free slots; once it is full, they replace random ones. Random draws are seeded by
    (seed, step), so the content is a function of the images that were added. Its state in a checkpoint is the whole
    buffer in slot order, whatever the number of ranks, so a run may resume with another number.

    Args:
        capacity: images in all; 0 keeps nothing.
        shape: (C, H, W) of an image.
        gather: joins the ranks' tensors in rank order. Every rank must call ``sample``, ``add`` and ``state_dict``.
        reduce: sums the ranks' tensors.
    """

    def __init__(
        self,
        capacity: int,
        shape: tuple[int, int, int],
        *,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        gather: Collective = single_process,
        reduce: Collective = single_process,
    ) -> None:
        self.capacity, self.seed, self.rank, self.world = capacity, seed, rank, world
        self.filled = 0
        self.images = torch.zeros(len(range(rank, capacity, world)), *shape, device=device)
        self._gather, self._reduce = gather, reduce

    def sample(self, count: int, step: int) -> torch.Tensor:
        """``count`` distinct images of the buffer, (count, C, H, W), drawn for ``step``; the same on every rank."""
        assert count <= self.filled, f"{count} images of {self.filled}"
        slots = self._draw(self.filled, count, "sample", step)
        if self.world == 1:
            return self.images[self._on_device(slots)]
        positions, rows = self._mine(slots)
        drawn = self.images.new_zeros(count, *self.images.shape[1:])
        drawn[positions] = self.images[rows]
        return self._reduce(drawn)  # a slot is stored on one rank; adding the other ranks' zeros is exact

    def add(self, fresh: torch.Tensor, step: int) -> None:
        """Adds fresh images (n, C, H, W), the same on every rank; n is at most the capacity."""
        if not self.capacity:
            return
        count = len(fresh)
        free = torch.arange(self.filled, min(self.filled + count, self.capacity))
        slots = torch.cat([free, self._draw(self.filled, count - len(free), "replace", step)])
        positions, rows = self._mine(slots)
        self.images[rows] = fresh[positions].detach().float().nan_to_num()  # no non-finite value may enter the buffer
        self.filled = min(self.filled + count, self.capacity)

    def _draw(self, among: int, count: int, *purpose: int | str) -> torch.Tensor:
        return torch.randperm(among, generator=generator("cpu", self.seed, "history", *purpose))[:count]

    def _mine(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The positions in ``slots`` (on the CPU) of this rank's slots, and their rows in ``images``, on the device."""
        positions = (slots % self.world == self.rank).nonzero()[:, 0]
        return self._on_device(positions), self._on_device(slots[positions] // self.world)

    def _on_device(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers.to(self.images.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """The whole buffer, (capacity, C, H, W) in slot order, on every rank. Every rank must call this."""
        images = self.images
        if self.world > 1:
            rows = -(-self.capacity // self.world)
            padded = images.new_zeros(rows, *images.shape[1:])
            padded[: len(images)] = images
            gathered = self._gather(padded).view(self.world, rows, *images.shape[1:])
            images = gathered.transpose(0, 1).flatten(0, 1)[: self.capacity].contiguous()
        return {"images": images, "filled": self.filled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if len(state["images"]) != self.capacity:
            raise ValueError(f"a history of {len(state['images'])} images, expected {self.capacity}")
        self.images.copy_(state["images"][self.rank :: self.world])
        self.filled = int(state["filled"])
