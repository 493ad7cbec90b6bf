"""Rotation self-supervision: D predicts how many quarter turns an image is rotated (Lucic et al. 2019, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from cluster_jobs.core.errors import UserError
from s3gan.auxiliary.base import AuxiliaryHead, DiscriminatorPass, GeneratorPass, Term
from s3gan.losses.auxiliary import quarter_turns, rotation_loss

TURNS = 4


class RotationKeys(Protocol):
    """What it reads of a run's configuration."""

    batch: int
    accumulate: int
    rotation_weight_d: float
    rotation_weight_g: float

    @property
    def turned(self) -> int:
        """Images of a global batch that are also shown turned."""


@dataclass(frozen=True)
class Rotation(AuxiliaryHead):
    """The last images are also shown turned by 90, 180 and 270 degrees. D learns the turns of real images, and G is
    rewarded for turns that D recognises (Lucic et al. 2019, section 3.3)."""

    images: int  # of a micro-batch, the last ones
    weight_d: float = 1.0
    weight_g: float = 0.2
    name: ClassVar[str] = "rotation"

    @classmethod
    def of(cls, config: RotationKeys, ranks: int) -> Rotation:
        """The head of a run.

        Raises:
            UserError: the images to turn do not divide over ranks and micro-batches.
        """
        parts = ranks * config.accumulate
        if config.turned % parts:
            raise UserError(
                f"batch={config.batch}: the {config.turned} images to turn do not divide over {ranks} processes "
                f"of accumulate={config.accumulate} micro-batches"
            )
        return cls(config.turned // parts, config.rotation_weight_d, config.rotation_weight_g)

    def outputs(self, classes: int) -> int:
        return TURNS

    def views(self, images: Tensor) -> Tensor:
        return quarter_turns(images[len(images) - self.images :])

    def view_conditions(self, conditions: Tensor) -> Tensor:
        return torch.cat([conditions[len(conditions) - self.images :]] * (TURNS - 1))

    def discriminator_term(self, seen: DiscriminatorPass) -> Term:
        return self._term(seen.real, seen.views, self.weight_d, "d")

    def generator_term(self, seen: GeneratorPass) -> Term:
        return self._term(seen.fake, seen.views, self.weight_g, "g")

    def _term(self, upright: Tensor, turned: Tensor, weight: float, player: str) -> Term:
        """From the logits (n, 4) of images as they are and (3 · images, 4) of the turned ones, in blocks."""
        logits = torch.cat([upright[len(upright) - self.images :], turned])
        turns = torch.arange(TURNS, device=logits.device).repeat_interleave(self.images)
        loss = rotation_loss(logits, turns).mean()
        accuracy = (logits.argmax(1) == turns).float().mean()
        return Term(loss, weight, {f"loss/rotation_{player}": loss, f"accuracy/rotation_{player}": accuracy})
