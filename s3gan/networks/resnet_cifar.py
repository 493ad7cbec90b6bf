"""The ResNet generator and discriminator of SNGAN for CIFAR-10, and their kin for larger images.

Miyato et al. 2018 (table 4) as their authors' public code has them, conditional as in Miyato & Koyama 2018: the batch
norms of blocks have a gain and a bias for each class, the last batch norm does not; the discriminator pools by a sum
and has a projection head. With one class it is the unconditional network; with a rotation head, that of SSGAN (Chen et
al. 2019). None has attention. `width` is 128 at 32 px and 64 above in the publications, and there only the
discriminator is spectrally normalised.
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cluster_jobs.distributed.batchnorm import BatchNorm
from s3gan.networks.base import Discriminator, Generator
from s3gan.networks.heads import HeadPlan, Heads, Judgement, one_hot
from s3gan.networks.layers import (
    ConditionalBatchNorm,
    Conv2d,
    DiscriminatorBlock,
    GeneratorBlock,
    Linear,
    initialise,
    initialise_classes,
)

Z_DIM = 128
SEED_SIZE = 4  # height and width of the map that the generator starts from


@dataclass(frozen=True)
class CifarArchitecture:
    """One image size. Channels are multiples of `width`."""

    generator: tuple[int, ...]  # the seed's channels, then each block's; every block doubles the size
    discriminator: tuple[int, ...]  # each block's channels; every block but the last `flat` ones halves the size
    flat: int

    @property
    def size(self) -> int:
        """Pixels of an image's side."""
        return SEED_SIZE << (len(self.generator) - 1)


ARCHITECTURES = {
    32: CifarArchitecture((2, 2, 2, 2), (1, 1, 1, 1), 2),  # Miyato et al. 2018
    64: CifarArchitecture((16, 8, 4, 2, 1), (1, 2, 4, 8, 16), 0),  # Miyato & Koyama 2018, ImageNet, likewise 128 px
    128: CifarArchitecture((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 1),
}


class ResNetCifar:
    """The family."""

    sizes = tuple(sorted(ARCHITECTURES))

    def generator(
        self, size: int, channels: int, classes: int, width: int, *, normalise: bool, embedding_std: float
    ) -> Generator:
        of = ARCHITECTURES[size], channels, classes, width
        return ResNetGenerator(*of, normalise=normalise, embedding_std=embedding_std)

    def discriminator(
        self, size: int, channels: int, classes: int, width: int, plan: HeadPlan, *, normalise: bool
    ) -> Discriminator:
        return ResNetDiscriminator(ARCHITECTURES[size], channels, classes, width, plan, normalise=normalise)


class ResNetGenerator(Generator):
    """Maps noise and a class to an image. The classes' gains and biases are never spectrally normalised."""

    def __init__(
        self,
        architecture: CifarArchitecture,
        channels: int,
        classes: int,
        width: int,
        *,
        normalise: bool,
        embedding_std: float,
    ) -> None:
        super().__init__()
        self.size, self.z_dim, self.classes = architecture.size, Z_DIM, classes
        features = [width * multiple for multiple in architecture.generator]
        norm = partial(ConditionalBatchNorm, condition=classes, normalise=False)
        self.seed = Linear(Z_DIM, features[0] * SEED_SIZE**2, normalise=normalise)
        self.blocks = nn.ModuleList(
            GeneratorBlock(inputs, outputs, norm, normalise=normalise) for inputs, outputs in pairwise(features)
        )
        self.norm = BatchNorm(features[-1])
        self.to_image = Conv2d(features[-1], channels, 3, normalise=normalise)
        _initialise(self)
        initialise_classes(self, embedding_std)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z (N, z_dim) ~ N(0, I) and labels (N,) int64 or weights (N, classes) -> (N, C, size, size) in [-1, 1]."""
        weights = one_hot(labels, self.classes)
        x = self.seed(z).unflatten(1, (SEED_SIZE, SEED_SIZE, -1)).permute(0, 3, 1, 2)  # channels last is fast
        for block in self.blocks:
            x = block(x, weights)
        return torch.tanh(self.to_image(F.relu(self.norm(x))))


class ResNetDiscriminator(Discriminator):
    """Residual blocks, a sum over positions, and the heads."""

    def __init__(
        self,
        architecture: CifarArchitecture,
        channels: int,
        classes: int,
        width: int,
        plan: HeadPlan,
        *,
        normalise: bool,
    ) -> None:
        super().__init__()
        features = [channels, *(width * multiple for multiple in architecture.discriminator)]
        halving = len(features) - 1 - architecture.flat
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(
                inputs,
                inputs if number else outputs,
                outputs,
                down=number < halving,
                first=number == 0,
                convolved=inputs != outputs or number < halving,
                normalise=normalise,
            )
            for number, (inputs, outputs) in enumerate(pairwise(features))
        )
        self.num_features = features[-1]
        self.heads = Heads(self.num_features, classes, plan, normalise=normalise)
        _initialise(self)

    def forward(self, x: Tensor, conditions: Tensor) -> Judgement:
        """x (N, C, size, size) in [-1, 1], conditions as `Heads` takes them."""
        x = x.to(memory_format=torch.channels_last)  # the fast layout
        for block in self.blocks:
            x = block(x)
        return self.heads(F.relu(x).sum((2, 3)), conditions)


def _initialise(network: nn.Module) -> None:
    """Uniform weights (Glorot & Bengio 2010), larger by √2 in front of and behind a block's inner ReLU."""
    initialise(network, nn.init.xavier_uniform_)
    for block in network.modules():
        if isinstance(block, GeneratorBlock | DiscriminatorBlock):
            for layer in (block.conv1, block.conv2):
                nn.init.xavier_uniform_(layer.weight, math.sqrt(2))
