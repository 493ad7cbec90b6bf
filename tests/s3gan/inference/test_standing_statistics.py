"""Batch norm's moments for evaluation: those of many batches, kept beside the run."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from s3gan.inference import standing_statistics
from s3gan.inference.loading import load_generator
from s3gan.inference.standing_statistics import settle
from s3gan.networks.biggan import LIGHT, BigGanGenerator
from s3gan.networks.layers import iterate_spectral_norm
from tests.s3gan.toy_run import draw, make_run, train_further


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_standing_statistics_are_the_moments_of_all_the_blocks_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_statistics, "SAMPLES", (128, 1))
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


def test_statistics_of_another_checkpoint_of_the_same_name_are_not_used(tmp_path: Path) -> None:
    run, other = make_run(tmp_path / "run"), make_run(tmp_path / "other")
    expected = draw(load_generator(run)[0])
    train_further(other, 1, 3, 7)
    load_generator(other, str(other / "checkpoints" / "000000000007.safetensors"))
    (run / "standing" / "000000000100.safetensors").write_bytes(
        (other / "standing" / "000000000007.safetensors").read_bytes()
    )
    assert torch.equal(draw(load_generator(run)[0]), expected)
