"""The history of refined images (SimGAN, section 2.3, algorithm 1): D must not forget what R used to draw."""

from typing import Any

import torch

from cluster_jobs.seeds import generator


class History:
    """A buffer of ``capacity`` refined images that is the same on every rank.

    While it fills, fresh images take the next free slots; once full, they replace random ones. The draws are keyed by
    (seed, step), so the buffer is a function of what went through it, and images plus a count are all its state.
    """

    def __init__(self, capacity: int, shape: tuple[int, int, int], *, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.filled = 0
        self.images = torch.zeros(capacity, *shape, device=device)

    def sample(self, count: int, step: int) -> torch.Tensor:
        """``count`` different old images, (count, C, H, W), drawn for ``step``."""
        assert count <= self.filled, f"{count} images of {self.filled}"
        return self.images[self._slots(self.filled, count, "sample", step)]

    def add(self, fresh: torch.Tensor, step: int) -> None:
        """Puts fresh images (n, C, H, W) in: n must be at most the capacity."""
        count, capacity = len(fresh), len(self.images)
        free = torch.arange(self.filled, min(self.filled + count, capacity))
        replaced = self._slots(self.filled, count - len(free), "replace", step)
        slots = torch.cat([free.to(self.images.device, non_blocking=True), replaced])
        self.images[slots] = fresh.detach().float().nan_to_num()  # nothing non-finite may stay
        self.filled = min(self.filled + count, capacity)

    def _slots(self, among: int, count: int, *purpose: int | str) -> torch.Tensor:
        draw = torch.randperm(among, generator=generator("cpu", self.seed, "history", *purpose))[:count]
        return draw.to(self.images.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images, "filled": self.filled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.images.copy_(state["images"])
        self.filled = int(state["filled"])
