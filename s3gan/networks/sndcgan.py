"""The convolutional generator and discriminator of SNGAN ("standard CNN", without residual blocks).

Miyato et al. 2018 (table 3) as their authors' public code and the S3GAN experiments' have them, in images of 32, 64 and
128 px by a larger seed. They were published without classes. Here each of the generator's batch norms has a gain and a
bias for each class (as in Miyato & Koyama 2018; the first one normalises every value of the seed by itself, so there
these are many), and the discriminator has a projection head over its last map, which it does not pool. With one class
this is the published network. None has attention. `width` is 64 in the publication, and there only the discriminator is
spectrally normalised.
"""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3gan.networks.base import Discriminator, Generator
from s3gan.networks.heads import HeadPlan, Heads, Judgement, one_hot
from s3gan.networks.layers import ConditionalBatchNorm, Conv2d, Linear, TransposedConv2d, initialise, initialise_classes

Z_DIM = 128
SIZES = (32, 64, 128)
GENERATOR = (8, 4, 2, 1)  # channels as multiples of `width`: the seed's, then each doubling's
DISCRIMINATOR = (1, 2, 4, 8)  # the first convolution's, then each halving's
SLOPE = 0.1  # of the leaky ReLU below zero
START = partial(nn.init.normal_, std=0.02)  # every weight's


class SnDcGan:
    """The family."""

    sizes = SIZES

    def generator(
        self, size: int, channels: int, classes: int, width: int, *, normalise: bool, embedding_std: float
    ) -> Generator:
        return SnDcGanGenerator(size, channels, classes, width, normalise=normalise, embedding_std=embedding_std)

    def discriminator(
        self, size: int, channels: int, classes: int, width: int, plan: HeadPlan, *, normalise: bool
    ) -> Discriminator:
        return SnDcGanDiscriminator(size, channels, classes, width, plan, normalise=normalise)


class SnDcGanGenerator(Generator):
    """Maps noise and a class to an image. The classes' gains and biases are never spectrally normalised."""

    def __init__(
        self, size: int, channels: int, classes: int, width: int, *, normalise: bool, embedding_std: float
    ) -> None:
        super().__init__()
        self.size, self.z_dim, self.classes = size, Z_DIM, classes
        features = [width * multiple for multiple in GENERATOR]
        self.seed_size = _smallest(size)
        norm = partial(ConditionalBatchNorm, condition=classes, normalise=False)
        self.seed = Linear(Z_DIM, features[0] * self.seed_size**2, normalise=normalise)
        self.seed_norm = norm(features[0] * self.seed_size**2)
        self.layers = nn.ModuleList(
            TransposedConv2d(inputs, outputs, normalise=normalise) for inputs, outputs in pairwise(features)
        )
        self.norms = nn.ModuleList(norm(outputs) for outputs in features[1:])
        self.to_image = Conv2d(features[-1], channels, 3, normalise=normalise)
        initialise(self, START)
        initialise_classes(self, embedding_std)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z (N, z_dim) ~ N(0, I) and labels (N,) int64 or weights (N, classes) -> (N, C, size, size) in [-1, 1]."""
        weights = one_hot(labels, self.classes)
        x = F.relu(self.seed_norm(self.seed(z)[:, :, None, None], weights))
        x = x.flatten(1).unflatten(1, (self.seed_size, self.seed_size, -1)).permute(0, 3, 1, 2)  # channels last is fast
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.relu(norm(layer(x), weights))
        return torch.tanh(self.to_image(x))


class SnDcGanDiscriminator(Discriminator):
    """Convolutions with leaky ReLUs: one at full size, then two at each half; the heads see all of the last map."""

    def __init__(self, size: int, channels: int, classes: int, width: int, plan: HeadPlan, *, normalise: bool) -> None:
        super().__init__()
        features = [width * multiple for multiple in DISCRIMINATOR]
        layers = [Conv2d(channels, features[0], 3, normalise=normalise)]
        for inputs, outputs in pairwise(features):
            layers += [
                Conv2d(inputs, outputs, 4, stride=2, normalise=normalise),
                Conv2d(outputs, outputs, 3, normalise=normalise),
            ]
        self.layers = nn.ModuleList(layers)
        self.num_features = features[-1] * _smallest(size) ** 2
        self.heads = Heads(self.num_features, classes, plan, normalise=normalise)
        initialise(self, START)

    def forward(self, x: Tensor, conditions: Tensor) -> Judgement:
        """x (N, C, size, size) in [-1, 1], conditions as `Heads` takes them."""
        x = x.to(memory_format=torch.channels_last)  # the fast layout
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
        return self.heads(x.flatten(1), conditions)


def _smallest(size: int) -> int:
    """Height and width of the smallest map in networks for images of `size` pixels: three doublings, or halvings."""
    return size // 8
