"""The ResNet generator and projection discriminator of BigGAN, one table entry per image size.

Brock et al. 2019 (appendix B) with the details of the S3GAN experiments (Lucic et al. 2019): z is cut into a chunk for
the 4x4 seed and one for each block; each conditional batch norm sees its chunk and one shared class embedding; the
discriminator pools by a sum, and has a projection head (Miyato & Koyama 2018) and a rotation head.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3gan.layers import Conv2d, DiscriminatorBlock, Embedding, GeneratorBlock, Linear, SelfAttention, initialise
from selfsup.batchnorm import BatchNorm

SEED_SIZE = 4  # height and width of the map that the generator starts from


@dataclass(frozen=True)
class Architecture:
    """One image size. Channels are multiples of `width`; blocks count from 1; attention follows a block, 0 is none."""

    z_dim: int
    embed_dim: int  # of the class embedding that the generator's blocks share
    generator: tuple[int, ...]  # the seed's channels, then each block's; every block doubles the size
    discriminator: tuple[int, ...]  # each block's channels; every block but the last `flat` ones halves the size
    flat: int = 1
    generator_attention: int = 0
    discriminator_attention: int = 0


# 32 px has the depth of BigGAN's CIFAR network but a pyramid of channels, as a flat one spends its time at full size.
# 64 to 512 px are those of the S3GAN experiments.
ARCHITECTURES = {
    32: Architecture(64, 32, (4, 4, 2, 1), (1, 2, 4, 4)),
    64: Architecture(120, 128, (16, 16, 8, 4, 2), (2, 4, 8, 16, 16), 1, 4, 1),
    128: Architecture(120, 128, (16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 1, 4, 1),
    256: Architecture(140, 128, (16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16), 1, 5, 2),
    512: Architecture(160, 128, (16, 16, 8, 8, 4, 2, 1, 1), (1, 1, 2, 4, 8, 8, 16, 16), 1, 4, 3),
}


class Generator(nn.Module):
    """Maps noise and a class to an image.

    Args:
        size: names the table entry.
        width: scales every layer.
        embedding_std: of the values at which the class embedding starts; those of the noise beside it have 1.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        classes: int,
        width: int = 32,
        *,
        embedding_std: float = 1.0,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        architecture = ARCHITECTURES[size]
        features = [width * multiple for multiple in architecture.generator]
        blocks = len(features) - 1
        assert architecture.z_dim % (blocks + 1) == 0 and SEED_SIZE << blocks == size
        self.size, self.z_dim, self.classes = size, architecture.z_dim, classes
        self.chunk = architecture.z_dim // (blocks + 1)
        condition = self.chunk + architecture.embed_dim
        self.embedding = Embedding(classes, architecture.embed_dim, normalise=False)
        self.seed = Linear(self.chunk, features[0] * SEED_SIZE**2, normalise=normalise)
        self.blocks = nn.ModuleList(
            GeneratorBlock(inputs, outputs, condition, normalise=normalise)
            for inputs, outputs in zip(features, features[1:], strict=False)
        )
        place = architecture.generator_attention
        self.attention = _attention(blocks, place, features[place], normalise)
        self.norm = BatchNorm(features[-1])
        self.to_image = Conv2d(features[-1], channels, 3, normalise=normalise)
        initialise(self)
        # On the scale of the noise beside it; orthogonal rows are several times smaller, so classes start out weaker.
        nn.init.normal_(self.embedding.weight, std=embedding_std)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z (N, z_dim) ~ N(0, I), labels (N,) int64 in [0, classes) -> (N, C, size, size) in [-1, 1]."""
        first, *chunks = z.split(self.chunk, dim=1)
        embedded = self.embedding(labels)
        x = self.seed(first).unflatten(1, (SEED_SIZE, SEED_SIZE, -1)).permute(0, 3, 1, 2)  # channels last is fast
        for block, attention, chunk in zip(self.blocks, self.attention, chunks, strict=True):
            x = attention(block(x, torch.cat([chunk, embedded], 1)))
        return torch.tanh(self.to_image(F.relu(self.norm(x))))


class Judgement(NamedTuple):
    """What a discriminator says of N images."""

    score: Tensor  # (N,) unbounded; positive is real
    rotation: Tensor | None  # (N, 4) logits of the quarter turns, where there is a rotation head
    features: Tensor  # (N, F) sum-pooled


class Discriminator(nn.Module):
    """Scores images given their class, and tells by how many quarter turns they are rotated."""

    def __init__(
        self,
        size: int,
        channels: int,
        classes: int,
        width: int = 32,
        *,
        rotation: bool,
        projection: bool = True,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        architecture = ARCHITECTURES[size]
        features = [channels, *(width * multiple for multiple in architecture.discriminator)]
        blocks = len(features) - 1
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(
                features[i],
                features[i + 1],
                down=i < blocks - architecture.flat,
                first=i == 0,
                normalise=normalise,
            )
            for i in range(blocks)
        )
        place = architecture.discriminator_attention
        self.attention = _attention(blocks, place, features[place], normalise)
        self.num_features = features[-1]
        self.score = Linear(self.num_features, 1, normalise=normalise)
        self.projection = Embedding(classes, self.num_features, normalise=normalise) if projection else None
        self.rotation = Linear(self.num_features, 4, normalise=normalise) if rotation else None
        initialise(self)
        if self.projection is not None:
            nn.init.xavier_normal_(self.projection.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Judgement:
        """x (N, C, size, size) in [-1, 1], labels (N,) int64 in [0, classes)."""
        x = x.to(memory_format=torch.channels_last)  # the fast layout
        for block, attention in zip(self.blocks, self.attention, strict=True):
            x = attention(block(x))
        features = F.relu(x).sum((2, 3))
        score = self.score(features).squeeze(1)
        if self.projection is not None:
            score = score + (self.projection(labels) * features).sum(1)
        return Judgement(score, None if self.rotation is None else self.rotation(features), features)


def _attention(blocks: int, place: int, features: int, normalise: bool) -> nn.ModuleList:
    """What follows each block: self-attention after the block at `place` (from 1), nothing after the others."""
    return nn.ModuleList(
        SelfAttention(features, normalise=normalise) if number == place else nn.Identity()
        for number in range(1, blocks + 1)
    )
