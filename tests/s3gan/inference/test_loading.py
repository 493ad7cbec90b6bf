"""What a trained generator becomes before anybody draws from it."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.distributed.batchnorm import BatchNorm
from cluster_jobs.training.run import load_run
from s3gan.inference import loading as snapshot
from s3gan.inference.loading import (
    build_discriminator,
    export_generator,
    load_discriminator,
    load_generator,
    read_network,
    settle,
)
from s3gan.networks.biggan import LIGHT, BigGanGenerator
from s3gan.networks.layers import Conv2d, Embedding, Linear, iterate_spectral_norm
from tests.s3gan.toy_run import make_run, train_further


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def draw(generator: torch.nn.Module, z_dim: int = 64) -> Tensor:
    torch.manual_seed(5)
    with torch.no_grad():
        return generator(torch.randn(6, z_dim), torch.tensor([0, 1, 2, 0, 1, 2]))


def test_standing_statistics_are_the_moments_of_all_the_blocks_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "SAMPLES", (128, 1))
    torch.manual_seed(0)
    generator = BigGanGenerator(LIGHT[32], 1, 3, 2)
    seen: list[Tensor] = []
    first = generator.blocks[0].norm1.norm  # sees the seed map, which no other batch norm has changed
    hook = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
    settle(generator, None)
    hook.remove()
    values = torch.cat(seen).transpose(0, 1).flatten(1)
    assert len(seen) == 2
    torch.testing.assert_close(first.running_mean.double(), values.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first.running_var.double(), values.var(1, correction=0), rtol=1e-5, atol=1e-6)


def test_settled_samples_look_like_those_of_a_large_training_batch() -> None:
    torch.manual_seed(0)
    generator = BigGanGenerator(LIGHT[32], 1, 3, 2)
    settled = settle(copy.deepcopy(generator), None)
    z, labels = torch.randn(600, generator.z_dim), torch.arange(600) % 3
    iterate_spectral_norm(generator, 30)
    with torch.no_grad():
        expected = generator(z, labels)
        error = (settled(z, labels) - expected).square().mean()
        error_of_one_batch = (generator.eval()(z, labels) - expected).square().mean()  # a tenth of one batch's moments
    assert error < 0.01 * expected.var() < 0.1 * error_of_one_batch


def test_loading_is_repeatable_and_the_kept_statistics_change_nothing(run: Path) -> None:
    first, info = load_generator(run)
    assert (run / "standing" / info["file"]).is_file()
    assert info["nimg"] == 100 and len(info["sha256"]) == 64
    kept, _ = load_generator(run)
    assert torch.equal(draw(first), draw(kept))
    (run / "standing" / info["file"]).write_bytes(b"torn")
    assert torch.equal(draw(first), draw(load_generator(run)[0]))


def test_a_run_that_cannot_be_written_to_is_drawn_from_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    (run / "standing").write_text("in the way")  # the tests may run as root, whom no permission stops
    first = draw(load_generator(run)[0])
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: cannot create the directory '{run}/standing': ")
    assert warning.count("\n") == 1 and "standing statistics are not kept" in warning
    (run / "standing").unlink()
    with monkeypatch.context() as patch:
        patch.setenv("RANK", "1")
        (run / "standing" / "000000000100.safetensors").mkdir(parents=True)
        assert torch.equal(draw(load_generator(run)[0]), first)
    (run / "standing" / "000000000100.safetensors").rmdir()
    assert torch.equal(draw(load_generator(run)[0]), first)
    assert capsys.readouterr().err == ""


def test_an_export_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "export").write_text("in the way")
    with pytest.raises(UserError, match="cannot create the directory '.*/export'"):
        snapshot.export_generator(run)


def test_statistics_of_another_checkpoint_of_the_same_name_are_not_used(tmp_path: Path) -> None:
    run, other = make_run(tmp_path / "run"), make_run(tmp_path / "other")
    expected = draw(load_generator(run)[0])
    train_further(other, 1, 3, 7)
    load_generator(other, str(other / "checkpoints" / "000000000007.safetensors"))
    (run / "standing" / "000000000100.safetensors").write_bytes(
        (other / "standing" / "000000000007.safetensors").read_bytes()
    )
    assert torch.equal(draw(load_generator(run)[0]), expected)


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


def test_the_export_needs_torch_alone_and_draws_the_same_images_at_any_batch_size(run: Path, tmp_path: Path) -> None:
    path = export_generator(run)
    assert path == run / "export" / "generator.pt"
    program = f"""
import sys, torch
generator = torch.jit.load({str(path)!r})
torch.manual_seed(5)
images = generator(torch.randn(6, 64), torch.tensor([0, 1, 2, 0, 1, 2]))
torch.save(images, {str(tmp_path / "images.pt")!r})
assert not [name for name in sys.modules if name.startswith(("s3gan", "selfsup", "cluster_jobs"))]
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=280)
    images = torch.load(tmp_path / "images.pt", weights_only=True)
    torch.testing.assert_close(images, draw(load_generator(run)[0]), rtol=1e-5, atol=1e-6)
