"""Who is trained at which step (SimGAN, algorithm 1): a pure function of the step, so a fixed one has nothing to save.

``auto`` is the rule that the authors describe: K_d stays 1, and K_g is raised while D is too strong.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any


class Phase(Enum):
    warm_refiner = "R alone, on self-regularisation: it learns to return its input"
    warm_discriminator = "D alone, on what R returns"
    refiner = "R against D"
    discriminator = "D against R"


@dataclass(frozen=True)
class Schedule:
    """Warm-up of R, then of D, then rounds of ``k_g`` refiner steps and ``k_d`` discriminator steps.

    ``start`` is the step that the rounds count from, at the earliest the end of the warm-ups; before it D has drawn
    ``drawn`` batches of real images.
    """

    warm_refiner: int
    warm_discriminator: int
    k_g: int
    k_d: int
    start: int = 0
    drawn: int = 0

    @property
    def warm(self) -> int:
        """The steps of both warm-ups."""
        return self.warm_refiner + self.warm_discriminator

    def phase(self, step: int) -> Phase:
        if step < self.warm_refiner:
            return Phase.warm_refiner
        if step < self.warm:
            return Phase.warm_discriminator
        place = (step - max(self.start, self.warm)) % (self.k_g + self.k_d)
        return Phase.refiner if place < self.k_g else Phase.discriminator

    def real_batches(self, step: int) -> int:
        """How many batches of real images D has drawn before ``step``: one at each of its steps."""
        if step <= self.warm:
            return max(0, step - self.warm_refiner)
        rounds, place = divmod(step - max(self.start, self.warm), self.k_g + self.k_d)
        return max(self.drawn, self.warm_discriminator) + rounds * self.k_d + max(0, place - self.k_g)

    def observe(self, step: int, means: Mapping[str, float] | None) -> None:
        """Whatever is logged, a fixed schedule stays."""

    @property
    def state(self) -> dict[str, "AutoSchedule"]:
        """What a checkpoint holds of it."""
        return {}

    def metrics(self) -> dict[str, float]:
        """What a line of metrics tells of it."""
        return {}


class AutoSchedule:
    """Rounds of K_g steps of R and one of D, with K_g moved by one at a time to keep D's loss within a band.

    Below the band D is too strong and R gets more steps, above it fewer, never fewer than one or more than ``max_k_g``.
    The loss is the mean that was logged, read at the log cadence, where the host has it anyway, equal on all ranks.
    A changed K_g begins a new round. Part of the checkpoint.
    """

    def __init__(self, schedule: Schedule, *, low: float, high: float, max_k_g: int) -> None:
        self.schedule = replace(schedule, k_d=1)
        self.low, self.high, self.max_k_g = low, high, max_k_g

    def phase(self, step: int) -> Phase:
        return self.schedule.phase(step)

    def real_batches(self, step: int) -> int:
        """As `Schedule.real_batches`, for the steps since K_g was last changed."""
        return self.schedule.real_batches(step)

    def observe(self, step: int, means: Mapping[str, float] | None) -> None:
        """Takes in the means of metrics before ``step``; without any of D's loss, or in the warm-ups, nothing moves."""
        loss = (means or {}).get("loss/d", math.nan)
        if step <= self.schedule.warm or not math.isfinite(loss):
            return
        k_g = self.schedule.k_g + (loss < self.low) - (loss > self.high)
        if k_g != self.schedule.k_g and 1 <= k_g <= self.max_k_g:
            self.schedule = replace(self.schedule, k_g=k_g, start=step, drawn=self.schedule.real_batches(step))

    @property
    def state(self) -> dict[str, "AutoSchedule"]:
        return {"schedule": self}

    def metrics(self) -> dict[str, float]:
        return {"k_g": self.schedule.k_g}

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self.schedule, name) for name in ("k_g", "start", "drawn")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.schedule = replace(self.schedule, **state)
