import hashlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cluster_jobs.core.errors import UserError
from s3gan.metrics import pretrained
from s3gan.metrics.detector import DetectorName
from s3gan.metrics.pretrained import open_detector
from selfsup.encoders.loading import save_encoder
from selfsup.encoders.resnet import build_encoder

CPU = torch.device("cpu")


class InceptionStandIn(nn.Module):
    """Called like NVIDIA's translation of the network of FID: colour in [0, 255] to features."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(12, 5)

    def forward(
        self, img: torch.Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> torch.Tensor:
        assert img.shape[1] == 3
        features = F.adaptive_avg_pool2d(img.to(torch.float32), 2).flatten(1)
        return features if return_features else self.output(features).softmax(1)


class DinoStandIn(nn.Module):
    """The first layer of a ViT-L/14 and its mean: shapes and names as in DINOv2."""

    def __init__(self, width: int = 1024, registers: bool = False) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, 14, 14)})
        if registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, 4, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.patch_embed["proj"](x).mean((2, 3)) + self.cls_token[:, 0]


def pictures(channels=1, size=16):
    return torch.randint(0, 256, (4, channels, size, size), dtype=torch.uint8, generator=torch.Generator())


def open_it(name, weights, channels=1, size=16):
    return open_detector(DetectorName[name], str(weights), channels=channels, size=size, device=CPU)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def inception(tmp_path):
    torch.jit.script(InceptionStandIn()).save(tmp_path / "stand-in.pt")
    return tmp_path / "stand-in.pt"


def test_weights_that_are_not_those_of_fid_are_never_called_inception(inception):
    with pytest.raises(UserError, match=f"its SHA-256 is {sha256(inception)}, expected f58cb9b6") as error:
        open_it("inception", inception)
    assert "detector=encoder takes any network" in str(error.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_of_fid_sees_colour_pictures_of_bytes(inception, monkeypatch, channels):
    monkeypatch.setattr(pretrained, "FID_SHA256", sha256(inception))
    judge = open_it("inception", inception, channels)
    images = pictures(channels)
    expected = F.adaptive_avg_pool2d(images.float(), 2).expand(-1, 3, -1, -1).flatten(1)
    torch.testing.assert_close(judge.network(images), expected)
    assert (judge.protocol.detector, judge.protocol.hash) == ("inception", sha256(inception))
    assert "299 px" in judge.protocol.preprocessing and judge.last_layer.shape == (5, 12)


@pytest.mark.parametrize("channels", [1, 3])
def test_dinov2_sees_imagenets_scale_at_224_px(tmp_path, channels):
    torch.manual_seed(0)
    script = torch.jit.trace(DinoStandIn().eval(), torch.zeros(1, 3, 224, 224))
    script.save(tmp_path / "dino.pt")
    judge = open_it("dinov2", tmp_path / "dino.pt", channels)
    grey = torch.full((2, channels, 16, 16), 51, dtype=torch.uint8)
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = script(((0.2 - mean) / spread)[None, :, None, None].expand(2, 3, 224, 224))
    torch.testing.assert_close(judge.network(grey), expected, rtol=1e-4, atol=1e-5)
    assert judge.network(pictures(channels)).shape == (4, 1024)
    assert judge.protocol.hash == sha256(tmp_path / "dino.pt") and "bicubic" in judge.protocol.preprocessing


@pytest.mark.parametrize("network", [DinoStandIn(width=384), DinoStandIn(registers=True)], ids=["ViT-S", "registers"])
def test_another_network_is_not_dinov2(tmp_path, network):
    torch.jit.trace(network.eval(), torch.zeros(1, 3, 224, 224)).save(tmp_path / "other.pt")
    with pytest.raises(UserError, match="expected TorchScript of DINOv2 ViT-L/14 without registers"):
        open_it("dinov2", tmp_path / "other.pt")


def test_an_encoder_is_known_by_its_weights_wherever_they_lie(tmp_path):
    encoder = build_encoder("resnet8", 1, 4).eval()
    for name in ("first", "copy"):
        save_encoder(tmp_path / f"{name}.safetensors", encoder)
    save_encoder(tmp_path / "other.safetensors", build_encoder("resnet8", 1, 4, seed=1))
    first, copy, other = (open_it("encoder", tmp_path / f"{name}.safetensors") for name in ("first", "copy", "other"))
    assert first.protocol == copy.protocol != other.protocol
    images = pictures()
    torch.testing.assert_close(first.network(images), encoder(images.float() / 127.5 - 1))
    torch.jit.trace(encoder, torch.zeros(2, 1, 16, 16)).save(tmp_path / "script.pt")
    script = open_it("encoder", tmp_path / "script.pt")
    torch.testing.assert_close(script.network(images), first.network(images))
    assert script.protocol.hash == sha256(tmp_path / "script.pt")


@pytest.mark.parametrize("name", ["encoder", "inception", "dinov2"])
def test_a_missing_file_is_named(name):
    with pytest.raises(UserError, match="nowhere.pt"):
        open_it(name, "nowhere.pt")


def test_a_file_that_is_no_torchscript_is_refused(tmp_path, monkeypatch):
    (tmp_path / "junk.pt").write_bytes(b"junk")
    monkeypatch.setattr(pretrained, "FID_SHA256", sha256(tmp_path / "junk.pt"))
    for name in ("inception", "dinov2"):
        with pytest.raises(UserError, match=r"junk.pt': expected a TorchScript file"):
            open_it(name, tmp_path / "junk.pt")
