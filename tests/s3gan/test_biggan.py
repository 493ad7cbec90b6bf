"""The networks against the published parameter counts, and their wiring."""

import pytest
import torch
from torch import nn

from s3gan.networks.biggan import ARCHITECTURES, Discriminator, Generator


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("size", "generator", "discriminator"),
    [(128, 70_433_988, 87_982_370), (256, 82_097_604, 98_635_298), (512, 82_468_068, 98_801_378)],
)
def test_parameters_are_as_many_as_in_the_published_networks(size: int, generator: int, discriminator: int) -> None:
    with torch.device("meta"):
        assert count(Generator(size, 3, 1000, 96)) == generator
        assert count(Discriminator(size, 3, 1000, 96, rotation=False)) == discriminator
        assert count(Discriminator(size, 3, 1000, 96, rotation=True)) == discriminator + 4 * 1536 + 4


@pytest.mark.parametrize("size", sorted(ARCHITECTURES))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_makes_and_judges_images(size: int, channels: int) -> None:
    with torch.device("meta"):
        generator = Generator(size, channels, 5, 8, normalise=False)
        discriminator = Discriminator(size, channels, 5, 8, rotation=True, normalise=False)
        labels = torch.zeros(2, dtype=torch.int64)
        images = generator(torch.zeros(2, generator.z_dim), labels)
        judgement = discriminator(images, labels)
    assert images.shape == (2, channels, size, size)
    assert judgement.score.shape == (2,)
    assert judgement.rotation is not None and judgement.rotation.shape == (2, 4)
    assert judgement.features.shape == (2, discriminator.num_features)


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(32, 1, 3, 4).eval()


def test_images_lie_in_range_and_depend_on_class_and_on_every_chunk_of_the_noise(generator: Generator) -> None:
    z, labels = torch.randn(1, generator.z_dim), torch.tensor([0])
    image = generator(z, labels)
    assert image.abs().max() <= 1
    assert not torch.equal(image, generator(z, torch.tensor([1])))
    for start in range(0, generator.z_dim, generator.chunk):
        other = z.clone()
        other[:, start : start + generator.chunk] += 1
        assert not torch.equal(image, generator(other, labels))


def test_the_shared_embedding_is_not_normalised_and_all_other_weights_are(generator: Generator) -> None:
    weights = nn.Conv2d | nn.Linear | nn.Embedding
    layers = {name: layer for name, layer in generator.named_modules() if isinstance(layer, weights)}
    assert [name for name, layer in layers.items() if layer.spectral is None] == ["embedding"]


def test_class_and_noise_begin_on_the_same_scale_unless_told_otherwise_and_nothing_else_differs() -> None:
    networks = []
    for std in (1.0, 0.2):
        torch.manual_seed(0)
        networks.append(Generator(32, 1, 50, 2, embedding_std=std).state_dict())
    even, weaker = (network.pop("embedding.weight") for network in networks)
    assert even.std().item() == pytest.approx(1, abs=0.1)
    torch.testing.assert_close(weaker, 0.2 * even)
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_initial_weights_are_orthogonal(generator: Generator) -> None:
    rows = generator.blocks[0].conv1.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.t(), torch.eye(len(rows)), rtol=0, atol=1e-5)


def test_the_score_is_linear_in_the_features_plus_their_projection_on_the_class() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(32, 1, 3, 4, rotation=False, normalise=False)
    x, labels = torch.randn(5, 1, 32, 32), torch.tensor([0, 1, 2, 1, 0])
    score, rotation, features = discriminator(x, labels)
    expected = features @ discriminator.score.weight[0] + (discriminator.projection.weight[labels] * features).sum(1)
    torch.testing.assert_close(score, expected + discriminator.score.bias)
    assert rotation is None


def test_a_score_without_projection_ignores_the_class() -> None:
    discriminator = Discriminator(32, 1, 3, 4, rotation=False, projection=False).eval()
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(discriminator(x, torch.tensor([0, 1])).score, discriminator(x, torch.tensor([2, 0])).score)
