"""What every generator, discriminator and family of networks is, whatever its layers: their interfaces."""

from typing import Protocol

import torch
from torch import nn

from s3gan.networks.heads import HeadPlan, Heads


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


class Discriminator(nn.Module):
    """Scores images x (N, channels, size, size) in [-1, 1] with conditions as `Heads` takes them."""

    num_features: int
    heads: Heads


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
        """A generator, its weights spectrally normalised where asked for.

        `embedding_std` is the spread of its initial class parameters, 0 the family's default initialisation.
        """

    def discriminator(
        self, size: int, channels: int, classes: int, width: int, plan: HeadPlan, *, normalise: bool
    ) -> Discriminator:
        """A discriminator with the heads of a plan, its weights spectrally normalised where asked for."""
