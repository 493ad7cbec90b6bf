"""BigGAN's networks against their published sizes, and their wiring.

The sizes of 32 and 64 px, and those of grey images, were counted in the graph that the S3GAN experiments' public code
(compare_gan's `resnet_biggan`) builds; the others stand in it.
"""

import pytest
import torch
from torch import nn

from s3gan.networks import NETWORKS, HeadPlan
from s3gan.networks.biggan import ARCHITECTURES, LIGHT, BigGanDiscriminator, BigGanGenerator
from s3gan.networks.layers import SelfAttention
from tests.s3gan.networks.parameter_counts import attention, conv, count, dense

CH = 96
# size: length of z, G's channels in units of CH, the block that attention follows (0: none), D's likewise
TABLE = {
    32: (128, [4, 4, 4, 4], 0, [2, 2, 2, 2], 1),
    64: (120, [16, 16, 8, 4, 2], 4, [2, 4, 8, 16, 16], 1),
    128: (120, [16, 16, 8, 4, 2, 1], 4, [1, 2, 4, 8, 16, 16], 1),
    256: (140, [16, 16, 8, 8, 4, 2, 1], 5, [1, 2, 4, 8, 8, 16, 16], 2),
    512: (160, [16, 16, 8, 8, 4, 2, 1, 1], 4, [1, 1, 2, 4, 8, 8, 16, 16], 3),
}


def generator_size(size: int, colours: int, classes: int) -> int:
    z, multiples, place, _, _ = TABLE[size]
    features = [CH * multiple for multiple in multiples]
    chunk = z // len(features)
    total = classes * 128 + dense(chunk, 16 * features[0])
    for inputs, outputs in zip(features, features[1:], strict=False):
        norms = 2 * (chunk + 128) * (inputs + outputs)
        total += norms + conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + conv(inputs, outputs, 1)
    return total + (attention(features[place]) if place else 0) + 2 * features[-1] + conv(features[-1], colours, 3)


def discriminator_size(size: int, colours: int, classes: int) -> int:
    *_, multiples, place = TABLE[size]
    features = [colours, *(CH * multiple for multiple in multiples)]
    total = attention(features[place]) + dense(features[-1], 1) + classes * features[-1]
    for inputs, outputs in zip(features, features[1:], strict=False):
        total += conv(inputs, outputs, 3) + conv(outputs, outputs, 3)
        total += conv(inputs, outputs, 1) if inputs != outputs else 0
    return total


@pytest.mark.parametrize("size", NETWORKS["biggan"].sizes)
@pytest.mark.parametrize(("colours", "classes"), [(1, 10), (3, 1000)])
def test_parameters_are_as_many_as_the_table_of_layers_has(size: int, colours: int, classes: int) -> None:
    with torch.device("meta"):
        generator = NETWORKS["biggan"].generator(size, colours, classes, CH, normalise=True, embedding_std=0)
        discriminator = NETWORKS["biggan"].discriminator(size, colours, classes, CH, HeadPlan(), normalise=True)
    assert count(generator) == generator_size(size, colours, classes)
    assert count(discriminator) == discriminator_size(size, colours, classes)
    assert generator.z_dim == TABLE[size][0]


@pytest.mark.parametrize(
    ("size", "colours", "classes", "generator", "discriminator"),
    [
        (32, 1, 10, 9_353_985, 2_374_274),
        (32, 3, 1000, 9_487_619, 2_568_194),
        (64, 1, 10, 70_108_930, 86_227_778),
        (64, 3, 1000, 70_239_108, 87_752_258),
        (128, 1, 10, 70_305_538, 86_459_810),
        (128, 3, 1000, 70_433_988, 87_982_370),
        (256, 3, 1000, 82_097_604, 98_635_298),
        (512, 3, 1000, 82_468_068, 98_801_378),
    ],
)
def test_parameters_are_as_many_as_in_the_published_networks(
    size: int, colours: int, classes: int, generator: int, discriminator: int
) -> None:
    with torch.device("meta"):
        assert count(BigGanGenerator(ARCHITECTURES[size], colours, classes, CH)) == generator
        plain, rotating = (
            BigGanDiscriminator(
                ARCHITECTURES[size], colours, classes, CH, HeadPlan(auxiliary={"rotation": 4} if rotation else {})
            )
            for rotation in (False, True)
        )
        assert count(plain) == discriminator
        assert count(rotating) - count(plain) == dense(plain.num_features, 4)
        if size == 128 and classes == 1000:
            assert count(rotating) == 87_988_518


@pytest.mark.parametrize("size", ARCHITECTURES)
def test_attention_follows_the_published_blocks(size: int) -> None:
    _, _, after_g, _, after_d = TABLE[size]
    with torch.device("meta"):
        players = (
            BigGanGenerator(ARCHITECTURES[size], 3, 5, 8),
            BigGanDiscriminator(ARCHITECTURES[size], 3, 5, 8, HeadPlan()),
        )
    for player, place in zip(players, (after_g, after_d), strict=True):
        found = [number for number, layer in enumerate(player.attention, 1) if isinstance(layer, SelfAttention)]
        assert found == [place] * (place > 0)


@pytest.fixture
def generator() -> BigGanGenerator:
    torch.manual_seed(0)
    return BigGanGenerator(LIGHT[32], 1, 3, 4).eval()


@pytest.mark.parametrize("architecture", [*ARCHITECTURES.values(), *LIGHT.values()])
def test_the_noise_divides_into_a_chunk_for_the_seed_and_one_for_every_block(architecture) -> None:
    with torch.device("meta"):
        generator = BigGanGenerator(architecture, 1, 3, 2)
    assert generator.chunk * (len(generator.blocks) + 1) == generator.z_dim


def test_images_depend_on_the_class(generator: BigGanGenerator) -> None:
    z = torch.randn(1, generator.z_dim)
    assert not torch.equal(generator(z, torch.tensor([0])), generator(z, torch.tensor([1])))


def test_the_shared_embedding_is_not_normalised_and_all_other_weights_are(generator: BigGanGenerator) -> None:
    weights = nn.Conv2d | nn.Linear | nn.Embedding
    layers = {name: layer for name, layer in generator.named_modules() if isinstance(layer, weights)}
    assert [name for name, layer in layers.items() if layer.spectral is None] == ["embedding"]


def test_the_class_embedding_begins_orthogonal_or_with_a_given_spread_and_nothing_else_differs() -> None:
    networks = []
    for std in (0.0, 1.0, 0.2):
        torch.manual_seed(0)
        networks.append(BigGanGenerator(LIGHT[32], 1, 50, 2, embedding_std=std).state_dict())
    orthogonal, even, weaker = (network.pop("embedding.weight") for network in networks)
    torch.testing.assert_close(orthogonal.t() @ orthogonal, torch.eye(32), rtol=0, atol=1e-5)
    assert even.std().item() == pytest.approx(1, abs=0.1)
    torch.testing.assert_close(weaker, 0.2 * even)
    assert all(torch.equal(networks[0][name], other[name]) for name in networks[0] for other in networks[1:])


def test_initial_weights_are_orthogonal(generator: BigGanGenerator) -> None:
    rows = generator.blocks[0].conv1.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.t(), torch.eye(len(rows)), rtol=0, atol=1e-5)


def test_features_are_summed_over_places() -> None:
    torch.manual_seed(0)
    discriminator = BigGanDiscriminator(LIGHT[32], 1, 3, 4, HeadPlan())
    maps: list[torch.Tensor] = []
    discriminator.attention[-1].register_forward_hook(lambda _, inputs, output: maps.append(output))
    features = discriminator(torch.randn(2, 1, 32, 32), torch.tensor([0, 1])).features
    torch.testing.assert_close(features, maps[0].clamp(min=0).flatten(2).sum(2))
