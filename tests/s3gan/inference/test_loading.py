"""What a trained generator becomes before anybody draws from it."""

from pathlib import Path

import pytest
import torch

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.distributed.batchnorm import BatchNorm
from cluster_jobs.training.run import load_run
from s3gan.inference.loading import load_discriminator, load_generator
from s3gan.inference.network_file import build_discriminator, read_network
from s3gan.networks.layers import Conv2d, Embedding, Linear
from tests.s3gan.toy_run import draw, make_run, train_further


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_a_checkpoint_is_chosen_by_name_or_path(run: Path) -> None:
    old = draw(load_generator(run)[0])
    train_further(run, 1, 3, 200)
    assert load_generator(run)[1]["nimg"] == 200
    generator, info = load_generator(run, str(run / "checkpoints" / "000000000100.safetensors"))
    assert info["nimg"] == 100 and torch.equal(draw(generator), old)
    with pytest.raises(UserError, match="checkpoint=best"):
        load_generator(run, "best")


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="network.json"):
        load_generator(tmp_path)


def test_a_loaded_generator_is_in_evaluation_mode_and_free_of_norms_of_weights(run: Path) -> None:
    generator, _ = load_generator(run)
    assert not generator.training
    assert not any("spectral" in name for name in generator.state_dict())
    assert any(isinstance(layer, BatchNorm) for layer in generator.modules())


def test_a_loaded_discriminator_has_weights_of_spectral_norm_one_and_scores_as_the_one_in_training(run: Path) -> None:
    found, nimg = load_discriminator(run)
    trained = build_discriminator(read_network(run))
    trained.load_state_dict(load_run(run)[1]["discriminator"])
    assert nimg == 100 and not found.training and not any(part.requires_grad for part in found.parameters())
    assert not any("spectral" in name for name in found.state_dict())
    layers = dict(trained.named_modules())
    exact = {}
    for name, weight in found.state_dict().items():
        layer = layers[name.rpartition(".")[0]]
        if name.endswith(".weight") and isinstance(layer, Conv2d | Linear | Embedding):
            assert torch.linalg.matrix_norm(weight.flatten(1), 2) == pytest.approx(1, abs=0.02)
            exact[layer] = layer.weight.detach() / torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
    for layer, weight in exact.items():
        layer.spectral = None
        layer.weight.data = weight
    images, labels = torch.rand(5, 1, 32, 32) * 2 - 1, torch.tensor([0, 1, 2, 1, -1])
    torch.testing.assert_close(found(images, labels).score, trained(images, labels).score, rtol=0.05, atol=0.01)
    assert found(images[:1], labels[:1]).score != found(images[:1], labels[1:2]).score


def test_a_checkpoint_without_a_fitting_discriminator_is_refused(run: Path) -> None:
    network = read_json(run / "network.json")
    write_json(run / "network.json", network | {"width": 3})
    with pytest.raises(UserError, match="holds no discriminator of it"):
        load_discriminator(run)
