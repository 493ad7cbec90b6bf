"""The ResNet generator and projection discriminator of BigGAN, one table entry per image size.

Brock et al. 2019 (appendix B) with the details of the S3GAN experiments (Lucic et al. 2019): z is cut into a chunk for
the 4x4 seed and one for each block; each conditional batch norm sees its chunk and one shared class embedding; the
discriminator pools by a sum, and has a projection head (Miyato & Koyama 2018) and a rotation head.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cluster_jobs.distributed.batchnorm import BatchNorm
from s3gan.networks.base import Discriminator, Generator
from s3gan.networks.heads import HeadPlan, Heads, Judgement
from s3gan.networks.layers import (
    ConditionalBatchNorm,
    Conv2d,
    DiscriminatorBlock,
    Embedding,
    GeneratorBlock,
    Linear,
    SelfAttention,
    initialise,
)

SEED_SIZE = 4  # height and width of the map that the generator starts from


@dataclass(frozen=True)
class BigGANArchitecture:
    """One image size. Channels are multiples of `width`; blocks count from 1; attention follows a block, 0 is none."""

    z_dim: int
    embed_dim: int  # of the class embedding that the generator's blocks share
    generator: tuple[int, ...]  # the seed's channels, then each block's; every block doubles the size
    discriminator: tuple[int, ...]  # each block's channels; every block but the last `flat` ones halves the size
    flat: int = 1
    generator_attention: int = 0
    discriminator_attention: int = 0

    @property
    def size(self) -> int:
        """Pixels of an image's side."""
        return SEED_SIZE << (len(self.generator) - 1)


# Those of the S3GAN experiments' public code; its `ch`, 96 where it is published, is our `width`. At 32 px attention
# follows the first block of D alone: G's default after, the fourth block, is not there.
ARCHITECTURES = {
    32: BigGANArchitecture(128, 128, (4, 4, 4, 4), (2, 2, 2, 2), 1, 0, 1),
    64: BigGANArchitecture(120, 128, (16, 16, 8, 4, 2), (2, 4, 8, 16, 16), 1, 4, 1),
    128: BigGANArchitecture(120, 128, (16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 1, 4, 1),
    256: BigGANArchitecture(140, 128, (16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16), 1, 5, 2),
    512: BigGANArchitecture(160, 128, (16, 16, 8, 8, 4, 2, 1, 1), (1, 1, 2, 4, 8, 8, 16, 16), 1, 4, 3),
}
# The depth of BigGAN's CIFAR network but a pyramid of channels, as a flat one spends its time at full size.
LIGHT = {32: BigGANArchitecture(64, 32, (4, 4, 2, 1), (1, 2, 4, 4))}


@dataclass(frozen=True)
class BigGan:
    """The family, with one architecture per image size."""

    architectures: Mapping[int, BigGANArchitecture]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(sorted(self.architectures))

    def generator(
        self, size: int, channels: int, classes: int, width: int, *, normalise: bool, embedding_std: float
    ) -> Generator:
        of = self.architectures[size], channels, classes, width
        return BigGanGenerator(*of, embedding_std=embedding_std, normalise=normalise)

    def discriminator(
        self, size: int, channels: int, classes: int, width: int, plan: HeadPlan, *, normalise: bool
    ) -> Discriminator:
        return BigGanDiscriminator(self.architectures[size], channels, classes, width, plan, normalise=normalise)


class BigGanGenerator(Generator):
    """Maps noise and a class to an image.

    Args:
        width: scales every layer.
        embedding_std: standard deviation of the initial class embedding, where that of the noise is 1; 0 is orthogonal,
            as in the paper: vectors of norm 1 at most, so that classes start out weaker than the noise.
    """

    def __init__(
        self,
        architecture: BigGANArchitecture,
        channels: int,
        classes: int,
        width: int = 32,
        *,
        embedding_std: float = 0.0,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        features = [width * multiple for multiple in architecture.generator]
        blocks = len(features) - 1
        assert architecture.z_dim % (blocks + 1) == 0
        self.size, self.z_dim, self.classes = architecture.size, architecture.z_dim, classes
        self.chunk = architecture.z_dim // (blocks + 1)
        condition = self.chunk + architecture.embed_dim
        norm = partial(ConditionalBatchNorm, condition=condition, normalise=normalise)
        self.embedding = Embedding(classes, architecture.embed_dim, normalise=False)
        self.seed = Linear(self.chunk, features[0] * SEED_SIZE**2, normalise=normalise)
        self.blocks = nn.ModuleList(
            GeneratorBlock(inputs, outputs, norm, normalise=normalise) for inputs, outputs in pairwise(features)
        )
        after = architecture.generator_attention
        self.attention = _attention(blocks, after, features[after], normalise)
        self.norm = BatchNorm(features[-1])
        self.to_image = Conv2d(features[-1], channels, 3, normalise=normalise)
        initialise(self)
        if embedding_std:
            nn.init.normal_(self.embedding.weight, std=embedding_std)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z (N, z_dim) ~ N(0, I) and labels (N,) int64 or weights (N, classes) -> (N, C, size, size) in [-1, 1]."""
        first, *chunks = z.split(self.chunk, dim=1)
        embedded = self.embedding(labels)
        x = self.seed(first).unflatten(1, (SEED_SIZE, SEED_SIZE, -1)).permute(0, 3, 1, 2)  # channels last is fast
        for block, attention, chunk in zip(self.blocks, self.attention, chunks, strict=True):
            x = attention(block(x, torch.cat([chunk, embedded], 1)))
        return torch.tanh(self.to_image(F.relu(self.norm(x))))


class BigGanDiscriminator(Discriminator):
    """Residual blocks, a sum over positions, and the heads."""

    def __init__(
        self,
        architecture: BigGANArchitecture,
        channels: int,
        classes: int,
        width: int,
        plan: HeadPlan,
        *,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        features = [channels, *(width * multiple for multiple in architecture.discriminator)]
        blocks = len(features) - 1
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(
                inputs,
                outputs,
                outputs,
                down=number < blocks - architecture.flat,
                first=number == 0,
                convolved=inputs != outputs,
                normalise=normalise,
            )
            for number, (inputs, outputs) in enumerate(pairwise(features))
        )
        after = architecture.discriminator_attention
        self.attention = _attention(blocks, after, features[after], normalise)
        self.num_features = features[-1]
        self.heads = Heads(self.num_features, classes, plan, normalise=normalise)
        initialise(self)
        self.heads.initialise_projection()

    def forward(self, x: Tensor, conditions: Tensor) -> Judgement:
        """x (N, C, size, size) in [-1, 1], conditions as `Heads` takes them."""
        x = x.to(memory_format=torch.channels_last)  # the fast layout
        for block, attention in zip(self.blocks, self.attention, strict=True):
            x = attention(block(x))
        return self.heads(F.relu(x).sum((2, 3)), conditions)


def _attention(blocks: int, after: int, features: int, normalise: bool) -> nn.ModuleList:
    """What follows each block: self-attention after the block at `after` (from 1), nothing after the others."""
    return nn.ModuleList(
        SelfAttention(features, normalise=normalise) if number == after else nn.Identity()
        for number in range(1, blocks + 1)
    )
