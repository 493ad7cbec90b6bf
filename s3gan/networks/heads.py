"""The linear heads over a discriminator's features: the score, the projection on the class, and auxiliary heads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3gan.networks.layers import Embedding, Linear

PREDICTOR = "predictor"  # the auxiliary head whose predictions replace unknown classes (Lucic et al. 2019, section 3.2)


@dataclass(frozen=True)
class HeadPlan:
    """Which heads a discriminator has besides its score."""

    projection: bool = True  # the score depends on the class (Miyato & Koyama 2018)
    auxiliary: Mapping[str, int] = field(default_factory=dict)  # the outputs of each auxiliary head, by its name
    soft_prediction: bool = False  # D is conditioned on predicted class probabilities, not on the most likely class


class Judgement(NamedTuple):
    """D's outputs for N images."""

    score: Tensor  # (N,) unbounded; positive is real
    auxiliary: dict[str, Tensor]  # (N, outputs) of each auxiliary head, by its name
    features: Tensor  # (N, F) what the heads see


class Heads(nn.Module):
    """The heads that a plan names; those of `HeadPlan.auxiliary` are submodules under their names."""

    def __init__(self, features: int, classes: int, plan: HeadPlan, *, normalise: bool) -> None:
        super().__init__()
        self.plan = plan
        self.score = Linear(features, 1, normalise=normalise)
        self.projection = Embedding(classes, features, normalise=normalise) if plan.projection else None
        for name, outputs in plan.auxiliary.items():
            self.add_module(name, Linear(features, outputs, normalise=normalise))

    def initialise_projection(self) -> None:
        """Initialises the projection weights (Glorot & Bengio 2010, as in the S3GAN experiments)."""
        if self.projection is not None:
            nn.init.xavier_normal_(self.projection.weight)

    def forward(self, features: Tensor, conditions: Tensor) -> Judgement:
        """features (N, F); conditions (N,) int64, -1 for unknown, or (N, classes) float32, zeros for unknown.

        The predictor fills in what is unknown, behind a stop-gradient. Without one an image of unknown class is scored
        without the projection.
        """
        score = self.score(features).squeeze(1)
        outputs: dict[str, Tensor] = {}
        if PREDICTOR in self.plan.auxiliary:
            outputs[PREDICTOR] = getattr(self, PREDICTOR)(features)
        if self.projection is not None:
            if PREDICTOR in outputs:
                guess = outputs[PREDICTOR].detach().float()
                conditions = fill_unknown(conditions, guess, self.plan.soft_prediction)
            score = score + (self.projection(conditions) * features).sum(1)
        for name in self.plan.auxiliary:
            if name not in outputs:
                outputs[name] = getattr(self, name)(features)
        return Judgement(score, outputs, features)


def fill_unknown(conditions: Tensor, logits: Tensor, soft: bool) -> Tensor:
    """Conditions with the unknown ones replaced by what the logits (N, classes) predict: the likeliest class, or with
    `soft` the probabilities of all classes. Takes and gives conditions as in `Heads.forward`."""
    hard = not conditions.is_floating_point()
    known = conditions >= 0 if hard else conditions.sum(1) > 0.5
    if hard and not soft:
        return torch.where(known, conditions, logits.argmax(1))
    classes = logits.shape[1]
    guess = logits.softmax(1) if soft else F.one_hot(logits.argmax(1), classes).to(logits.dtype)
    return torch.where(known[:, None], one_hot(conditions, classes), guess)


def one_hot(conditions: Tensor, classes: int) -> Tensor:
    """Conditions as weights (N, classes) float32; an unknown label gives zeros."""
    if conditions.is_floating_point():
        return conditions
    return F.one_hot(conditions.clamp(min=0), classes).float() * (conditions >= 0)[:, None]
