"""Which network is trained at which step (SimGAN, algorithm 1).

A fixed schedule is a function of the step and has no state. ``auto`` is the rule that the authors describe: K_d stays
1, and K_g is raised while D is too strong.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any


class Phase(Enum):
    """What is trained in a step."""

    warm_refiner = "R alone, on self-regularisation: it learns to return its input"
    warm_discriminator = "D alone, on what R returns"
    refiner = "R against D"
    discriminator = "D against R"


@dataclass(frozen=True)
class Schedule:
    """Warm-up of R, then of D, then rounds of ``k_g`` refiner steps and ``k_d`` discriminator steps.

    Attributes:
        warm_refiner: steps of R's warm-up.
        warm_discriminator: steps of D's warm-up, after R's.
        k_g: refiner steps per round.
        k_d: discriminator steps per round.
        start: the step at which rounds begin, where that is after the warm-ups.
        drawn: batches of real images that D has drawn before ``start``.
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
        """The phase of a step."""
        if step < self.warm_refiner:
            return Phase.warm_refiner
        if step < self.warm:
            return Phase.warm_discriminator
        position = (step - max(self.start, self.warm)) % (self.k_g + self.k_d)
        return Phase.refiner if position < self.k_g else Phase.discriminator

    def real_batches(self, step: int) -> int:
        """The number of batches of real images that D has drawn before ``step``: one per step of D."""
        if step <= self.warm:
            return max(0, step - self.warm_refiner)
        rounds, position = divmod(step - max(self.start, self.warm), self.k_g + self.k_d)
        return max(self.drawn, self.warm_discriminator) + rounds * self.k_d + max(0, position - self.k_g)

    def observe(self, step: int, means: Mapping[str, float] | None) -> None:
        """Does nothing: a fixed schedule does not adapt."""

    @property
    def state(self) -> dict[str, "AutoSchedule"]:
        """Its entry in a checkpoint: none."""
        return {}

    def metrics(self) -> dict[str, float]:
        """Its metrics: none."""
        return {}


class AutoSchedule:
    """Rounds of K_g steps of R and one of D, with K_g moved by one at a time to keep D's loss within a band.

    Below the band D is too strong and R gets more steps, above it fewer, within 1 and ``max_k_g``. The loss is the mean
    at the log cadence, which is on the host anyway and equal on all ranks. A change of K_g begins a new round. The
    state is part of checkpoints.
    """

    def __init__(self, schedule: Schedule, *, low: float, high: float, max_k_g: int) -> None:
        self.schedule = replace(schedule, k_d=1)
        self.low, self.high, self.max_k_g = low, high, max_k_g

    def phase(self, step: int) -> Phase:
        """The phase of a step."""
        return self.schedule.phase(step)

    def real_batches(self, step: int) -> int:
        """As `Schedule.real_batches`, for the steps since K_g was last changed."""
        return self.schedule.real_batches(step)

    def observe(self, step: int, means: Mapping[str, float] | None) -> None:
        """Adapts K_g to the means of metrics before ``step``; not in the warm-ups, or without a mean of D's loss."""
        loss = (means or {}).get("loss/d", math.nan)
        if step <= self.schedule.warm or not math.isfinite(loss):
            return
        k_g = self.schedule.k_g + (loss < self.low) - (loss > self.high)
        if k_g != self.schedule.k_g and 1 <= k_g <= self.max_k_g:
            self.schedule = replace(self.schedule, k_g=k_g, start=step, drawn=self.schedule.real_batches(step))

    @property
    def state(self) -> dict[str, "AutoSchedule"]:
        """Its entry in a checkpoint."""
        return {"schedule": self}

    def metrics(self) -> dict[str, float]:
        """What is logged with every step."""
        return {"k_g": self.schedule.k_g}

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self.schedule, name) for name in ("k_g", "start", "drawn")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.schedule = replace(self.schedule, **state)
