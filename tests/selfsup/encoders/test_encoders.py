from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cluster_jobs.core.errors import UserError
from selfsup.encoders.loading import CLASSIFIER_FILE, load_encoder, save_encoder
from selfsup.encoders.resnet import ARCHITECTURES, build_encoder
from selfsup.labelling.classifier import Classifier, save_classifier


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_encoder_gives_the_features_it_promises_and_gradients_reach_its_stem(name: str, channels: int):
    encoder = build_encoder(name, channels, 4)
    features = encoder(torch.linspace(-1, 1, 2 * channels * 16 * 16).view(2, channels, 16, 16))
    assert features.shape == (2, encoder.num_features) and features.isfinite().all()
    (features * torch.linspace(-1, 1, encoder.num_features)).sum().backward()
    assert encoder.stem.weight.grad.abs().sum() > 0


def test_resnet18_has_the_published_number_of_parameters():
    count = sum(parameter.numel() for parameter in build_encoder("resnet18", 3, 64).parameters())
    assert count == 11_176_512 - 64 * 3 * (7 * 7 - 3 * 3)  # of He et al. without the classifier, with the smaller stem


def test_the_seed_decides_the_weights_whatever_was_drawn_before():
    first, other = build_encoder("resnet8", 1, 4, seed=1), build_encoder("resnet8", 1, 4, seed=2)
    torch.rand(3)
    again = build_encoder("resnet8", 1, 4, seed=1)
    assert torch.equal(first.stem.weight, again.stem.weight)
    assert not torch.equal(first.stem.weight, other.stem.weight)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"resnet9.*resnet8"):
        build_encoder("resnet9", 1)


def test_a_saved_encoder_and_the_one_inside_a_classifier_come_back_as_they_were(tmp_path: Path):
    encoder = build_encoder("resnet14", 3, 4, seed=3)
    encoder(torch.randn(4, 3, 16, 16))  # moves the running statistics
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    save_classifier(tmp_path / CLASSIFIER_FILE, Classifier(encoder, 5))
    picture = torch.randn(2, 3, 16, 16)
    for path in (tmp_path / "encoder.safetensors", tmp_path / CLASSIFIER_FILE, tmp_path):
        loaded, description = load_encoder(path, 3, "cpu")
        assert torch.equal(loaded(picture), encoder.eval()(picture))
        assert "resnet14" in description and not loaded.training


def test_an_encoder_for_other_channels_is_refused(tmp_path: Path):
    save_encoder(tmp_path / "e.safetensors", build_encoder("resnet8", 3, 4))
    with pytest.raises(UserError, match="3 channels"):
        load_encoder(tmp_path / "e.safetensors", 1, "cpu")


@pytest.mark.parametrize("change", ["missing", "strange"])
def test_a_file_that_does_not_cover_the_encoder_exactly_is_refused(tmp_path: Path, change: str):
    state = {name: t.contiguous() for name, t in build_encoder("resnet8", 1, 4).state_dict().items()}
    if change == "missing":
        del state["stem.weight"]
    else:
        state["blocks.9.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "e.safetensors", {"name": "resnet8", "channels": "1", "width": "4"})
    with pytest.raises(UserError, match=r"stem\.weight|blocks\.9"):
        load_encoder(tmp_path / "e.safetensors", 1, "cpu")


def test_what_is_no_encoder_is_refused_in_one_sentence(tmp_path: Path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "bare.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x00" * 20)
    (tmp_path / "text.pt").write_text("no script")
    (tmp_path / "empty").mkdir()
    expected = {
        "absent": "no such",
        "bare.safetensors": "metadata",
        "torn.safetensors": "unreadable",
        "text.pt": "TorchScript",
        "empty": "no run directory",
    }
    for name, message in expected.items():
        with pytest.raises(UserError, match=message):
            load_encoder(tmp_path / name, 1, "cpu")


def test_a_torchscript_backbone_sees_grey_pictures_in_colour_and_its_maps_are_pooled(tmp_path: Path):
    backbone = nn.Sequential(nn.Conv2d(3, 5, 3, 2), nn.ReLU())
    torch.jit.trace(backbone, torch.zeros(1, 3, 32, 32)).save(tmp_path / "backbone.pt")
    loaded, description = load_encoder(tmp_path / "backbone.pt", 1, "cpu")
    picture = torch.randn(2, 1, 32, 32)
    expected = backbone(picture.expand(-1, 3, -1, -1)).mean((2, 3))
    assert loaded.num_features == 5 and "grey" in description
    torch.testing.assert_close(loaded(picture), expected)


def test_a_torchscript_backbone_for_other_pictures_is_refused(tmp_path: Path):
    torch.jit.trace(nn.Conv2d(4, 5, 3), torch.zeros(1, 4, 32, 32)).save(tmp_path / "four.pt")
    with pytest.raises(UserError, match="cannot take pictures"):
        load_encoder(tmp_path / "four.pt", 3, "cpu")
