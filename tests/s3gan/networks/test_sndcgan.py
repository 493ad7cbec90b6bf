"""SNGAN's standard CNN against its published table of layers and a plain way to compute it."""

import pytest
import torch
from torch.nn import functional as F

from s3gan.networks import NETWORKS, HeadPlan
from s3gan.networks.layers import iterate_spectral_norm, normalised_weight
from s3gan.networks.sndcgan import SnDcGanDiscriminator, SnDcGanGenerator
from tests.s3gan.networks.parameter_counts import conv, count, dense


def generator_size(size: int, colours: int, classes: int) -> int:
    seed = (size // 8) ** 2 * 512
    total = dense(128, seed) + 2 * classes * seed + conv(64, colours, 3)
    return total + sum(conv(i, o, 4) + 2 * classes * o for i, o in [(512, 256), (256, 128), (128, 64)])


def discriminator_size(size: int, colours: int) -> int:
    layers = [(colours, 64, 3), (64, 128, 4), (128, 128, 3), (128, 256, 4), (256, 256, 3), (256, 512, 4), (512, 512, 3)]
    return sum(conv(*layer) for layer in layers) + dense((size // 8) ** 2 * 512, 1)


@pytest.mark.parametrize("size", NETWORKS["sndcgan"].sizes)
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("classes", [1, 10])
def test_parameters_are_as_many_as_the_table_of_layers_has(size: int, colours: int, classes: int) -> None:
    with torch.device("meta"):
        generator = SnDcGanGenerator(size, colours, classes, 64, normalise=False, embedding_std=0)
        plans = HeadPlan(projection=False), HeadPlan()
        plain, projecting = (SnDcGanDiscriminator(size, colours, classes, 64, plan, normalise=True) for plan in plans)
    assert count(generator) == generator_size(size, colours, classes)
    assert count(plain) == discriminator_size(size, colours)
    assert count(projecting) == count(plain) + classes * (size // 8) ** 2 * 512


@pytest.mark.parametrize(
    ("size", "colours", "generator", "discriminator"),
    [
        (32, 1, 3_827_585, 5_859_713),
        (32, 3, 3_828_739, 5_860_865),
        (64, 3, 7_048_195, 5_885_441),
        (128, 3, 19_926_019, 5_983_745),
    ],
)
def test_unconditional_networks_have_the_parameters_of_the_published_ones(
    size: int, colours: int, generator: int, discriminator: int
) -> None:
    """Counted in the graph that compare_gan's `sndcgan` builds, with batch norm."""
    of = size, colours, 1, 64
    with torch.device("meta"):
        assert count(SnDcGanGenerator(*of, normalise=False, embedding_std=0)) == generator
        assert count(SnDcGanDiscriminator(*of, HeadPlan(projection=False), normalise=True)) == discriminator


def make_generator(std: float = 0.0) -> SnDcGanGenerator:
    torch.manual_seed(0)
    return SnDcGanGenerator(32, 1, 3, 4, normalise=False, embedding_std=std)


def test_the_generator_is_a_dense_layer_and_three_doublings_each_normalised_for_the_class() -> None:
    generator = make_generator(0.5)
    z, labels = torch.randn(5, 128), torch.tensor([0, 1, 2, 2, 1])
    x = F.linear(z, generator.seed.weight, generator.seed.bias)
    for number, norm in enumerate([generator.seed_norm, *generator.norms]):
        if number:
            layer = generator.layers[number - 1]
            x = F.conv_transpose2d(x, layer.weight.transpose(0, 1), layer.bias, stride=2, padding=1)
        moments_over = [place for place in range(x.ndim) if place != 1]
        x = (x - x.mean(moments_over, keepdim=True)) * (x.var(moments_over, correction=0, keepdim=True) + 1e-5).rsqrt()
        gain, bias = 1 + norm.gamma.weight.t()[labels], norm.beta.weight.t()[labels]
        x = F.relu(x * gain.view(*gain.shape, *[1] * (x.ndim - 2)) + bias.view(*bias.shape, *[1] * (x.ndim - 2)))
        if not number:
            x = x.view(5, 4, 4, 32).permute(0, 3, 1, 2)
    expected = torch.tanh(F.conv2d(x, generator.to_image.weight, generator.to_image.bias, padding=1))
    torch.testing.assert_close(generator(z, labels), expected, rtol=1e-3, atol=1e-5)


def test_the_discriminator_is_seven_leaky_convolutions_and_its_features_are_not_pooled() -> None:
    torch.manual_seed(0)
    discriminator = SnDcGanDiscriminator(32, 1, 3, 4, HeadPlan(), normalise=True)
    iterate_spectral_norm(discriminator, 5)
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    x = images
    for layer, stride in zip(discriminator.layers, [1, 2, 1, 2, 1, 2, 1], strict=True):
        x = F.conv2d(x, normalised_weight(layer), layer.bias, stride, padding=1)
        x = torch.where(x > 0, x, 0.1 * x)
    assert x.shape == (2, 32, 4, 4)
    torch.testing.assert_close(discriminator(images, torch.tensor([0, 1])).features, x.flatten(1))


def test_weights_begin_small_and_normal_and_every_class_with_plain_batch_norm() -> None:
    plain, spread = make_generator().state_dict(), make_generator(0.5).state_dict()
    assert plain["seed.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert plain["layers.0.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    ours = [name for name in plain if "gamma" in name or "beta" in name]
    assert len(ours) == 2 * 4
    assert all(not plain[name].any() for name in ours)
    assert torch.cat([spread[name].flatten() for name in ours]).std().item() == pytest.approx(0.5, rel=0.05)
    assert all(torch.equal(plain[name], spread[name]) for name in plain if name not in ours)
