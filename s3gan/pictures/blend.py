"""Conditions between classes: weights over the classes in place of a label."""

from torch import Tensor, nn

from s3gan.layers import normalised_weight
from s3gan.networks.biggan import Generator


class Blended(nn.Module):
    """A generator that takes weights over the classes, and sees the mean of the class embedding under them.

    The only place that knows how a condition enters the generator.
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, weights: Tensor) -> Tensor:
        """z (N, z_dim), weights (N, classes) float32 whose rows sum to 1 -> (N, C, size, size) in [-1, 1]."""
        embedding = self.generator.embedding
        mean = weights @ normalised_weight(embedding)
        hook = embedding.register_forward_hook(lambda *_: mean)
        try:
            return self.generator(z, weights.argmax(1))
        finally:
            hook.remove()
