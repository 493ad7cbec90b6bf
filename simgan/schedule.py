"""Who is trained at which step (SimGAN, algorithm 1): a pure function of the step, so there is no counter to save."""

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    warm_refiner = "R alone, on self-regularisation: it learns to return its input"
    warm_discriminator = "D alone, on what R returns"
    refiner = "R against D"
    discriminator = "D against R"


@dataclass(frozen=True)
class Schedule:
    """Warm-up of R, then of D, then rounds of ``k_g`` refiner steps and ``k_d`` discriminator steps."""

    warm_refiner: int
    warm_discriminator: int
    k_g: int
    k_d: int

    def phase(self, step: int) -> Phase:
        if step < self.warm_refiner:
            return Phase.warm_refiner
        if step < self.warm_refiner + self.warm_discriminator:
            return Phase.warm_discriminator
        place = (step - self.warm_refiner - self.warm_discriminator) % (self.k_g + self.k_d)
        return Phase.refiner if place < self.k_g else Phase.discriminator

    def real_batches(self, step: int) -> int:
        """How many batches of real images D has drawn before ``step``: one at each of its steps."""
        rest = step - self.warm_refiner
        if rest <= self.warm_discriminator:
            return max(0, rest)
        rounds, place = divmod(rest - self.warm_discriminator, self.k_g + self.k_d)
        return self.warm_discriminator + rounds * self.k_d + max(0, place - self.k_g)
