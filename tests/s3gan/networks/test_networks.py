"""What every family of networks does, whatever its layers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cluster_jobs.core.files import write_json
from cluster_jobs.distributed.batchnorm import BatchNorm, synchronise
from cluster_jobs.training.checkpoint import CheckpointStore
from s3gan.inference import standing_statistics
from s3gan.inference.loading import load_generator
from s3gan.inference.network_file import build_generator, read_network
from s3gan.inference.standing_statistics import settle
from s3gan.inference.torchscript import export_generator
from s3gan.networks import NETWORKS, Discriminator, Generator, HeadPlan
from s3gan.networks.layers import SelfAttention, SpectralNorm, iterate_spectral_norm
from tests.s3gan.toy_run import make_run

CLASSES, WIDTH = 3, 4
SIZES = [(name, size) for name, network in NETWORKS.items() for size in network.sizes]
every_family = pytest.mark.parametrize("name", NETWORKS)
both_ways = pytest.mark.parametrize("normalise", [False, True])


def full_plan(classes: int) -> HeadPlan:
    return HeadPlan(auxiliary={"rotation": 4, "predictor": classes})


def make_generator(name: str, *, classes: int = CLASSES, normalise: bool = False, std: float = 0.0) -> Generator:
    torch.manual_seed(0)
    return NETWORKS[name].generator(32, 1, classes, WIDTH, normalise=normalise, embedding_std=std)


def make_discriminator(
    name: str, plan: HeadPlan | None = None, *, classes: int = CLASSES, normalise: bool = False
) -> Discriminator:
    torch.manual_seed(1)
    return NETWORKS[name].discriminator(32, 1, classes, WIDTH, plan or full_plan(classes), normalise=normalise)


def draw(generator: Generator, count: int = 6) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    return torch.randn(count, generator.z_dim), torch.arange(count) % generator.classes


@pytest.mark.parametrize(("name", "size"), SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_makes_and_judges_images(name: str, size: int, channels: int) -> None:
    with torch.device("meta"):
        generator = NETWORKS[name].generator(size, channels, 5, WIDTH, normalise=False, embedding_std=0.5)
        discriminator = NETWORKS[name].discriminator(size, channels, 5, WIDTH, full_plan(5), normalise=False)
        labels = torch.zeros(2, dtype=torch.int64)
        images = generator(torch.zeros(2, generator.z_dim), labels)
        judgement = discriminator(images, labels)
    assert (generator.size, generator.classes) == (size, 5)
    assert images.shape == (2, channels, size, size)
    assert judgement.score.shape == (2,)
    assert judgement.auxiliary["rotation"].shape == (2, 4)
    assert judgement.auxiliary["predictor"].shape == (2, 5)
    assert judgement.features.shape == (2, discriminator.num_features)


@every_family
def test_images_lie_in_range_and_depend_on_every_value_of_the_noise(name: str) -> None:
    generator = make_generator(name).eval()
    z, labels = draw(generator, 1)
    z.requires_grad_()
    image = generator(z, labels)
    assert image.abs().max() <= 1
    image.sum().backward()
    assert z.grad is not None and (z.grad != 0).all()


@every_family
def test_one_hot_weights_make_the_images_of_their_labels_and_other_weights_make_others(name: str) -> None:
    generator = make_generator(name, std=1.0).eval()
    z, labels = draw(generator)
    images = generator(z, labels)
    torch.testing.assert_close(generator(z, F.one_hot(labels, CLASSES).float()), images)
    mixed = generator(z, torch.full((len(z), CLASSES), 1 / CLASSES))
    for other in (generator(z, (labels + 1) % CLASSES), mixed):
        assert (other - images).abs().amax((1, 2, 3)).min() > 1e-3


@every_family
def test_a_score_is_linear_in_the_features_plus_their_projection_on_what_is_known_of_the_class(name: str) -> None:
    discriminator = make_discriminator(name, HeadPlan())
    x, labels, heads = torch.rand(4, 1, 32, 32) * 2 - 1, torch.tensor([2, 0, -1, 1]), discriminator.heads
    assert heads.projection is not None
    judged = discriminator(x, labels)
    rows = heads.projection.weight[labels.clamp(min=0)] * (labels >= 0)[:, None]
    expected = judged.features @ heads.score.weight[0] + heads.score.bias + (rows * judged.features).sum(1)
    torch.testing.assert_close(judged.score, expected)
    weights = torch.eye(CLASSES)[labels.clamp(min=0)] * (labels >= 0)[:, None]
    torch.testing.assert_close(discriminator(x, weights).score, judged.score)
    assert judged.auxiliary == {}


@every_family
def test_a_score_without_projection_ignores_the_class(name: str) -> None:
    discriminator = make_discriminator(name, HeadPlan(projection=False))
    x = torch.rand(2, 1, 32, 32)
    assert torch.equal(discriminator(x, torch.tensor([0, 1])).score, discriminator(x, torch.tensor([2, -1])).score)


@every_family
def test_a_single_class_is_enough(name: str) -> None:
    generator = make_generator(name, classes=1)
    z, labels = draw(generator)
    judged = make_discriminator(name, classes=1)(generator(z, labels), labels)
    assert judged.score.isfinite().all() and judged.auxiliary["predictor"].shape == (6, 1)


@every_family
def test_weights_are_spectrally_normalised_where_asked_for_and_nowhere_else(name: str) -> None:
    for player in (make_generator(name), make_discriminator(name)):
        assert not any(isinstance(module, SpectralNorm) for module in player.modules())
    generator, discriminator = make_generator(name, normalise=True), make_discriminator(name, normalise=True)
    layers = [layer for layer in discriminator.modules() if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert all(layer.spectral is not None for layer in layers)
    assert all(layer.spectral is not None for layer in generator.modules() if isinstance(layer, nn.Conv2d))
    for player in (generator, discriminator):
        iterate_spectral_norm(player, 1)
    z, labels = draw(generator)
    assert discriminator(generator(z, labels), labels).score.isfinite().all()


@every_family
@both_ways
def test_gradients_reach_every_parameter(name: str, normalise: bool) -> None:
    generator, discriminator = make_generator(name, normalise=normalise), make_discriminator(name, normalise=normalise)
    for player in (generator, discriminator):
        iterate_spectral_norm(player, 10)
        for layer in player.modules():
            if isinstance(layer, SelfAttention):
                layer.scale.data.fill_(0.5)  # at its start, zero, it hides its layers
    z, labels = draw(generator)
    judged = discriminator(generator.eval()(z, labels), labels)  # batch norm in training hides biases before it
    (judged.score.sum() + sum(said.square().sum() for said in judged.auxiliary.values())).backward()
    for player in (generator, discriminator):
        dead = [n for n, value in player.named_parameters() if value.grad is None or not value.grad.any()]
        assert not dead


@every_family
def test_batch_norms_can_share_their_moments_over_ranks(name: str) -> None:
    generator = make_generator(name)
    z, labels = draw(generator)
    expected = generator(z, labels)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in generator.modules())
    norms = [module for module in generator.modules() if isinstance(module, BatchNorm)]
    calls: list[int] = []

    def add_a_rank_with_the_same_images(sums: Tensor) -> Tensor:
        calls.append(len(sums))
        return 2 * sums

    synchronise(generator, add_a_rank_with_the_same_images)
    torch.testing.assert_close(generator(z, labels), expected, rtol=1e-3, atol=1e-4)
    assert sorted(calls) == sorted(2 * norm.num_features + 1 for norm in norms)


@every_family
def test_settled_samples_look_like_those_of_a_large_training_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_statistics, "SAMPLES", (512, 1))
    generator = make_generator(name, normalise=True)
    z, labels = draw(generator, 300)
    iterate_spectral_norm(generator, 30)
    with torch.no_grad():
        expected = generator(z, labels)
        error_before = (generator.eval()(z, labels) - expected).square().mean()
        error = (settle(generator, None)(z, labels) - expected).square().mean()
    assert error < 0.02 * expected.var() < 0.1 * error_before


@every_family
def test_an_exported_generator_draws_the_same_images_at_any_batch_size(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_statistics, "SAMPLES", (128, 1))
    run = make_run(tmp_path / "run")
    network = read_network(run) | {"network": name}
    write_json(run / "network.json", network)
    CheckpointStore(run / "checkpoints").save({"generator_ema": build_generator(network).state_dict()}, 200)
    exported, generator = torch.jit.load(export_generator(run)), load_generator(run)[0]
    for count in (1, 5):
        z, labels = draw(generator, count)
        torch.testing.assert_close(exported(z, labels), generator(z, labels), rtol=1e-4, atol=1e-5)
