"""What an auxiliary head of the discriminator is: its outputs, the images it asks for, and its terms of both losses."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor


class Term(NamedTuple):
    """A summand of a player's loss."""

    loss: Tensor  # scalar
    weight: float
    metrics: dict[str, Tensor]  # scalars


@dataclass(frozen=True)
class DiscriminatorPass:
    """A micro-batch of a discriminator step: n real images, n fakes, and the outputs of one head for them.

    The images are as the discriminator saw them, after augmentation.
    """

    real: Tensor  # (n, outputs) of the real images
    fake: Tensor  # (n, outputs) of the fakes
    views: Tensor  # (k, outputs) of the head's own views of the real images
    images: Tensor  # (n, C, H, W) the real images
    fakes: Tensor  # (n, C, H, W)
    conditions: Tensor  # of the real images, as `s3gan.networks.Heads` takes them
    fake_labels: Tensor  # the fakes' conditions
    labelled: Tensor  # (n,) weights of the real images, see `AuxiliaryHead.labelled_only`
    z: Tensor  # (n, z_dim) noise behind the fakes


@dataclass(frozen=True)
class GeneratorPass:
    """A micro-batch of a generator step: n fakes, and the outputs of one head of the discriminator for them."""

    fake: Tensor  # (n, outputs) of the fakes
    views: Tensor  # (k, outputs) of the head's own views of the fakes
    fakes: Tensor  # (n, C, H, W) after augmentation
    labels: Tensor  # (n,) int64, the fakes' conditions
    z: Tensor  # (n, z_dim) noise behind the fakes


@dataclass(frozen=True)
class AuxiliaryHead(ABC):
    """A linear head on the discriminator's features, and what it learns from real images and fakes.

    Every output enters the discriminator's loss, with a weight of zero where it should have no effect: data-parallel
    training waits for the gradient of every parameter. In the generator's step the head itself does not learn.
    """

    name: ClassVar[str]  # of the head in D, so in checkpoints and in network.json
    labelled_only: ClassVar[bool] = False  # its loss is a mean over the labelled real images, by `labelled` weights

    @abstractmethod
    def outputs(self, classes: int) -> int:
        """The number of outputs for an image, where the data have so many classes."""

    def views(self, images: Tensor) -> Tensor:
        """Images (k, C, H, W) for D in addition to n real images, or to n fakes: changed copies of some of them."""
        return images[:0]

    def view_conditions(self, conditions: Tensor) -> Tensor:
        """The conditions of `views` of images with these conditions, (n,) or (n, classes): (k,) or (k, classes)."""
        return conditions[:0]

    @abstractmethod
    def discriminator_term(self, seen: DiscriminatorPass) -> Term:
        """What the head adds to the discriminator's loss."""

    def generator_term(self, seen: GeneratorPass) -> Term | None:
        """What the head adds to the generator's loss; None for nothing."""
        return None
