"""The networks against the published parameter counts, and their wiring."""

import pytest
import torch
from torch import nn

from s3gan.networks import NETWORKS, HeadPlan
from s3gan.networks.biggan import ARCHITECTURES, LIGHT, BigGanDiscriminator, BigGanGenerator


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("size", "generator", "discriminator"),
    [(128, 70_433_988, 87_982_370), (256, 82_097_604, 98_635_298), (512, 82_468_068, 98_801_378)],
)
def test_parameters_are_as_many_as_in_the_published_networks(size: int, generator: int, discriminator: int) -> None:
    with torch.device("meta"):
        assert count(BigGanGenerator(ARCHITECTURES[size], 3, 1000, 96)) == generator
        plain, rotating = (
            BigGanDiscriminator(ARCHITECTURES[size], 3, 1000, 96, HeadPlan(rotation=rotation))
            for rotation in (False, True)
        )
        assert count(plain) == discriminator
        assert count(rotating) == discriminator + 4 * 1536 + 4


@pytest.mark.parametrize(("name", "size"), [(name, size) for name in NETWORKS for size in NETWORKS[name].sizes])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_makes_and_judges_images(name: str, size: int, channels: int) -> None:
    with torch.device("meta"):
        generator = NETWORKS[name].generator(size, channels, 5, 8, normalise=False, embedding_std=0)
        plan = HeadPlan(rotation=True, predictor=True)
        discriminator = NETWORKS[name].discriminator(size, channels, 5, 8, plan, normalise=False)
        labels = torch.zeros(2, dtype=torch.int64)
        images = generator(torch.zeros(2, generator.z_dim), labels)
        judgement = discriminator(images, labels)
    assert images.shape == (2, channels, size, size)
    assert judgement.score.shape == (2,)
    assert judgement.rotation is not None and judgement.rotation.shape == (2, 4)
    assert judgement.prediction is not None and judgement.prediction.shape == (2, 5)
    assert judgement.features.shape == (2, discriminator.num_features)


@pytest.fixture
def generator() -> BigGanGenerator:
    torch.manual_seed(0)
    return BigGanGenerator(LIGHT[32], 1, 3, 4).eval()


def test_images_lie_in_range_and_depend_on_class_and_on_every_chunk_of_the_noise(generator: BigGanGenerator) -> None:
    z, labels = torch.randn(1, generator.z_dim), torch.tensor([0])
    image = generator(z, labels)
    assert image.abs().max() <= 1
    assert not torch.equal(image, generator(z, torch.tensor([1])))
    for start in range(0, generator.z_dim, generator.chunk):
        other = z.clone()
        other[:, start : start + generator.chunk] += 1
        assert not torch.equal(image, generator(other, labels))


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


def test_the_score_is_linear_in_the_features_plus_their_projection_on_the_class() -> None:
    torch.manual_seed(0)
    discriminator = BigGanDiscriminator(LIGHT[32], 1, 3, 4, HeadPlan(rotation=False), normalise=False)
    x, labels, heads = torch.randn(5, 1, 32, 32), torch.tensor([0, 1, 2, 1, 0]), discriminator.heads
    score, rotation, prediction, features = discriminator(x, labels)
    expected = features @ heads.score.weight[0] + (heads.projection.weight[labels] * features).sum(1)
    torch.testing.assert_close(score, expected + heads.score.bias)
    assert rotation is None and prediction is None


def test_a_score_without_projection_ignores_the_class() -> None:
    discriminator = BigGanDiscriminator(LIGHT[32], 1, 3, 4, HeadPlan(rotation=False, projection=False)).eval()
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(discriminator(x, torch.tensor([0, 1])).score, discriminator(x, torch.tensor([2, 0])).score)
