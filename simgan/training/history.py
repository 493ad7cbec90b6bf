"""The history of refined images (SimGAN, section 2.3, algorithm 1): D must not forget what R used to draw."""

from collections.abc import Callable
from typing import Any

import torch

from cluster_jobs.core.seeds import generator

Collective = Callable[[torch.Tensor], torch.Tensor]


def alone(tensor: torch.Tensor) -> torch.Tensor:
    """What a collective does in one process."""
    return tensor


class History:
    """A buffer of ``capacity`` refined images in global slots, which the ranks share out: slot s lies on rank
    s modulo ``world``, so a rank holds 4 · C · H · W · capacity / world bytes (25,600 gaze images: 197 MB in all).

    While it fills, fresh images take the next free slots; once full, they replace random ones. The draws are keyed by
    (seed, step), so the buffer is a function of what went through it. Its state is the whole of it, slot by slot, the
    same whatever the number of ranks: a run that goes on with another number deals the slots out anew.

    ``capacity`` 0 keeps nothing. ``gather`` joins the ranks' tensors in rank order, ``reduce`` sums them; ``sample``,
    ``add`` and ``state_dict`` are for all ranks at once.
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
        gather: Collective = alone,
        reduce: Collective = alone,
    ) -> None:
        self.capacity, self.seed, self.rank, self.world = capacity, seed, rank, world
        self.filled = 0
        self.images = torch.zeros(len(range(rank, capacity, world)), *shape, device=device)
        self._gather, self._reduce = gather, reduce

    def sample(self, count: int, step: int) -> torch.Tensor:
        """``count`` different old images, (count, C, H, W), drawn for ``step``: the same ones on every rank."""
        assert count <= self.filled, f"{count} images of {self.filled}"
        slots = self._draw(self.filled, count, "sample", step)
        if self.world == 1:
            return self.images[self._moved(slots)]
        places, rows = self._mine(slots)
        drawn = self.images.new_zeros(count, *self.images.shape[1:])
        drawn[places] = self.images[rows]
        return self._reduce(drawn)  # every slot lies on one rank, and to all others' zeros it adds exactly

    def add(self, fresh: torch.Tensor, step: int) -> None:
        """Puts fresh images (n, C, H, W) in, the same on every rank: n must be at most the capacity."""
        if not self.capacity:
            return
        count = len(fresh)
        free = torch.arange(self.filled, min(self.filled + count, self.capacity))
        slots = torch.cat([free, self._draw(self.filled, count - len(free), "replace", step)])
        places, rows = self._mine(slots)
        self.images[rows] = fresh[places].detach().float().nan_to_num()  # nothing non-finite may stay
        self.filled = min(self.filled + count, self.capacity)

    def _draw(self, among: int, count: int, *purpose: int | str) -> torch.Tensor:
        return torch.randperm(among, generator=generator("cpu", self.seed, "history", *purpose))[:count]

    def _mine(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of the slots (on the CPU, so that nobody waits for the device) lie here, and in which rows."""
        places = (slots % self.world == self.rank).nonzero()[:, 0]
        return self._moved(places), self._moved(slots[places] // self.world)

    def _moved(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers.to(self.images.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """The whole buffer, (capacity, C, H, W) in the order of the slots, on every rank."""
        images = self.images
        if self.world > 1:
            rows = -(-self.capacity // self.world)
            padded = images.new_zeros(rows, *images.shape[1:])
            padded[: len(images)] = images
            dealt = self._gather(padded).view(self.world, rows, *images.shape[1:])
            images = dealt.transpose(0, 1).flatten(0, 1)[: self.capacity].contiguous()
        return {"images": images, "filled": self.filled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if len(state["images"]) != self.capacity:
            raise ValueError(f"a history of {len(state['images'])} images, expected {self.capacity}")
        self.images.copy_(state["images"][self.rank :: self.world])
        self.filled = int(state["filled"])
