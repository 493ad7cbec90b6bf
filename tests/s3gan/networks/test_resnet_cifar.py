"""SNGAN's ResNet against its published table of layers, its start, and where the class enters."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from s3gan.networks import NETWORKS, HeadPlan
from s3gan.networks.resnet_cifar import ARCHITECTURES, ResNetDiscriminator, ResNetGenerator
from tests.s3gan.networks.parameter_counts import conv, count, dense

# size: width, channels of G's seed and blocks, of D's blocks, and how many of D's blocks halve the map
TABLE = {
    32: (128, [256] * 4, [128] * 4, 2),
    64: (64, [1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024], 5),
    128: (64, [1024, 1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024, 1024], 5),
}


def generator_size(features: list[int], colours: int, classes: int) -> int:
    total = dense(128, 16 * features[0]) + 2 * features[-1] + conv(features[-1], colours, 3)
    for inputs, outputs in zip(features, features[1:], strict=False):
        norms = 2 * classes * (inputs + outputs)
        total += norms + conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + conv(inputs, outputs, 1)
    return total


def discriminator_size(features: list[int], halving: int, colours: int) -> int:
    first, last = features[0], features[-1]
    total = conv(colours, first, 3) + conv(first, first, 3) + conv(colours, first, 1) + dense(last, 1)
    for number, (inputs, outputs) in enumerate(zip(features, features[1:], strict=False), start=1):
        total += conv(inputs, inputs, 3) + conv(inputs, outputs, 3)
        total += conv(inputs, outputs, 1) if inputs != outputs or number < halving else 0
    return total


@pytest.mark.parametrize("size", NETWORKS["resnet_cifar"].sizes)
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("classes", [1, 10])
def test_parameters_are_as_many_as_the_table_of_layers_has(size: int, colours: int, classes: int) -> None:
    width, of_generator, of_discriminator, halving = TABLE[size]
    with torch.device("meta"):
        generator = ResNetGenerator(ARCHITECTURES[size], colours, classes, width, normalise=False, embedding_std=0)
        plans = HeadPlan(projection=False), HeadPlan()
        plain, projecting = (
            ResNetDiscriminator(ARCHITECTURES[size], colours, classes, width, plan, normalise=True) for plan in plans
        )
    assert count(generator) == generator_size(of_generator, colours, classes)
    assert count(plain) == discriminator_size(of_discriminator, halving, colours)
    assert count(projecting) == count(plain) + classes * of_discriminator[-1]


@pytest.mark.parametrize(
    ("size", "classes", "generator", "discriminator"),
    [
        (32, 1, 4_276_739, 1_053_825),
        (32, 10, 4_304_387, 1_055_105),
        (64, 1, 12_220_675, 10_141_441),
        (128, 1, 32_150_787, 29_017_857),
        (128, 10, 32_239_491, 29_028_097),
    ],
)
def test_parameters_are_as_many_as_in_another_implementation(
    size: int, classes: int, generator: int, discriminator: int
) -> None:
    """Counted in mimicry 0.1.16: its SNGAN, and for ten classes its projection GAN."""
    of = ARCHITECTURES[size], 3, classes, TABLE[size][0]
    with torch.device("meta"):
        assert count(ResNetGenerator(*of, normalise=False, embedding_std=0)) == generator
        plan = HeadPlan(projection=classes > 1)
        assert count(ResNetDiscriminator(*of, plan, normalise=True)) == discriminator


def make_generator(std: float = 0.0) -> ResNetGenerator:
    torch.manual_seed(0)
    return ResNetGenerator(ARCHITECTURES[32], 1, 3, 8, normalise=False, embedding_std=std)


def test_every_class_begins_with_plain_batch_norm_or_with_a_given_spread_and_nothing_else_differs() -> None:
    plain, spread = make_generator().state_dict(), make_generator(0.5).state_dict()
    ours = [name for name in plain if "gamma" in name or "beta" in name]
    assert len(ours) == 2 * 2 * 3
    assert all(not plain[name].any() and spread[name].shape[1] == 3 for name in ours)
    assert torch.cat([spread[name].flatten() for name in ours]).std().item() == pytest.approx(0.5, abs=0.05)
    assert all(torch.equal(plain[name], spread[name]) for name in plain if name not in ours)


def test_a_class_sets_the_gains_and_biases_of_the_blocks() -> None:
    generator, label = make_generator(1.0), 2
    seen: list[Tensor] = []
    norm = generator.blocks[1].norm1
    norm.norm.register_forward_hook(lambda _, inputs, output: seen.append(output))
    norm.register_forward_hook(lambda _, inputs, output: seen.append(output))
    generator(torch.randn(4, generator.z_dim), torch.full((4,), label))
    gain, bias = 1 + norm.gamma.weight[:, label], norm.beta.weight[:, label]
    torch.testing.assert_close(seen[1], seen[0] * gain[:, None, None] + bias[:, None, None])


def test_weights_begin_uniform_and_larger_inside_the_blocks() -> None:
    torch.manual_seed(0)
    discriminator = ResNetDiscriminator(ARCHITECTURES[32], 1, 3, 16, HeadPlan(), normalise=False)
    block = discriminator.blocks[1]
    for layer, gain, fans in [(block.conv1, math.sqrt(2), 2 * 16 * 9), (block.shortcut, 1.0, 2 * 16)]:
        bound = gain * math.sqrt(6 / fans)  # Glorot & Bengio 2010, equation 16
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert not layer.bias.any()


def test_features_are_summed_over_places() -> None:
    torch.manual_seed(0)
    discriminator = ResNetDiscriminator(ARCHITECTURES[32], 1, 3, 8, HeadPlan(), normalise=False)
    x = torch.rand(2, 1, 32, 32) * 2 - 1
    maps = x
    for block in discriminator.blocks:
        maps = block(maps)
    assert maps.shape == (2, 8, 8, 8)
    torch.testing.assert_close(discriminator(x, torch.tensor([0, 1])).features, F.relu(maps).flatten(2).sum(2))
