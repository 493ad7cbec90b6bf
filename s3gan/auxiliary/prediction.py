"""Class prediction: D learns the classes of labelled images, for the others (Lucic et al. 2019, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from s3gan.auxiliary.base import AuxiliaryHead, DiscriminatorPass, Term
from s3gan.losses.auxiliary import prediction_loss
from s3gan.networks.heads import PREDICTOR, one_hot


class PredictionKeys(Protocol):
    """What it reads of a run's configuration."""

    prediction_weight: float


@dataclass(frozen=True)
class Prediction(AuxiliaryHead):
    """Cross-entropy of the labelled real images. What D predicts conditions its score of the others (`Heads`)."""

    weight: float = 1.0
    name: ClassVar[str] = PREDICTOR
    labelled_only: ClassVar[bool] = True

    @classmethod
    def of(cls, config: PredictionKeys, ranks: int) -> Prediction:
        """The head of a run."""
        return cls(config.prediction_weight)

    def outputs(self, classes: int) -> int:
        return classes

    def discriminator_term(self, seen: DiscriminatorPass) -> Term:
        logits, targets = seen.real, one_hot(seen.conditions, seen.real.shape[1])
        right = logits.argmax(1) == targets.argmax(1)
        loss = (seen.labelled * prediction_loss(logits, targets)).mean()
        accuracy = (seen.labelled * right).mean()
        return Term(loss, self.weight, {"loss/prediction_d": loss, "accuracy/prediction_d": accuracy})
