"""What every generator and discriminator is, whatever its layers: their interfaces, and a discriminator's heads."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3gan.networks.layers import Embedding, Linear


class Generator(nn.Module):
    """Maps noise z (N, z_dim) float32 ~ N(0, I) and conditions to images (N, channels, size, size) in [-1, 1].

    Conditions are labels (N,) int64 in [0, classes), or weights (N, classes) float32 that blend the classes' vectors.
    """

    size: int
    z_dim: int
    classes: int

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


@dataclass(frozen=True)
class HeadPlan:
    """Which heads a discriminator has besides its score."""

    projection: bool = True  # the score depends on the class (Miyato & Koyama 2018)
    rotation: bool = False  # tells quarter turns apart (Chen et al. 2019)
    predictor: bool = False  # predicts the class, which conditions what has no label (Lucic et al. 2019, section 3.2)
    soft_prediction: bool = False  # by the probabilities of all classes instead of the likeliest one


class Judgement(NamedTuple):
    """What a discriminator says of N images."""

    score: Tensor  # (N,) unbounded; positive is real
    rotation: Tensor | None  # (N, 4) logits of the quarter turns, where there is a rotation head
    prediction: Tensor | None  # (N, classes) logits, where there is a predictor
    features: Tensor  # (N, F) what the heads see


class Discriminator(nn.Module):
    """Judges images x (N, channels, size, size) in [-1, 1] with conditions as `Heads` takes them."""

    num_features: int
    heads: "Heads"


class Heads(nn.Module):
    """The linear heads over a discriminator's features."""

    def __init__(self, features: int, classes: int, plan: HeadPlan, *, normalise: bool) -> None:
        super().__init__()
        self.soft = plan.soft_prediction
        self.score = Linear(features, 1, normalise=normalise)
        self.projection = Embedding(classes, features, normalise=normalise) if plan.projection else None
        self.rotation = Linear(features, 4, normalise=normalise) if plan.rotation else None
        self.predictor = Linear(features, classes, normalise=normalise) if plan.predictor else None

    def initialise_projection(self) -> None:
        """The projection's own start (Glorot & Bengio 2010, as in the S3GAN experiments)."""
        if self.projection is not None:
            nn.init.xavier_normal_(self.projection.weight)

    def forward(self, features: Tensor, conditions: Tensor) -> Judgement:
        """features (N, F); conditions (N,) int64, -1 for unknown, or (N, classes) float32, zeros for unknown.

        The predictor fills in what is unknown, behind a stop-gradient. Without one an image of unknown class is scored
        without the projection.
        """
        score = self.score(features).squeeze(1)
        prediction = None if self.predictor is None else self.predictor(features)
        if self.projection is not None:
            if prediction is not None:
                conditions = fill_unknown(conditions, prediction.detach().float(), self.soft)
            score = score + (self.projection(conditions) * features).sum(1)
        rotation = None if self.rotation is None else self.rotation(features)
        return Judgement(score, rotation, prediction, features)


def fill_unknown(conditions: Tensor, logits: Tensor, soft: bool) -> Tensor:
    """Conditions with the unknown ones replaced by what the logits (N, classes) predict: the likeliest class, or with
    `soft` the probabilities of all classes. Takes and gives conditions as in `Heads.forward`."""
    hard = not conditions.is_floating_point()
    known = conditions >= 0 if hard else conditions.sum(1) > 0.5
    if hard and not soft:
        return torch.where(known, conditions, logits.argmax(1))
    classes = logits.shape[1]
    guess = logits.softmax(1) if soft else F.one_hot(logits.argmax(1), classes).to(logits.dtype)
    return torch.where(known[:, None], weights_of(conditions, classes), guess)


def weights_of(conditions: Tensor, classes: int) -> Tensor:
    """Conditions as weights (N, classes) float32; an unknown label gives zeros."""
    if conditions.is_floating_point():
        return conditions
    return F.one_hot(conditions.clamp(min=0), classes).float() * (conditions >= 0)[:, None]


class Network(Protocol):
    """A family of networks: which image sizes it has, and its two players.

    Every layer's channels are a multiple of `width`; the family's file lists the multiples and the published width.
    """

    @property
    def sizes(self) -> tuple[int, ...]:
        """Image sizes in pixels, ascending."""

    def generator(
        self, size: int, channels: int, classes: int, width: int, *, normalise: bool, embedding_std: float
    ) -> Generator:
        """A generator, its weights spectrally normalised where asked for; `embedding_std` spreads what it has of each
        class at the start, 0 is the family's own start."""

    def discriminator(
        self, size: int, channels: int, classes: int, width: int, plan: HeadPlan, *, normalise: bool
    ) -> Discriminator:
        """A discriminator with the heads of a plan, its weights spectrally normalised where asked for."""
