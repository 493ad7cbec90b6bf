import pytest
import torch

from simgan.networks import refiner as refiners
from simgan.networks.discriminator import LAYERS, ImageDiscriminator, PatchDiscriminator, patches, receptive_field
from simgan.networks.refiner import Refiner


@pytest.mark.parametrize(
    ("layers", "size", "found", "field"),
    [("gaze", (35, 55), (9, 14), 23), ("gaze", (32, 32), (8, 8), 23), ("hand", (224, 224), (7, 7), 71)],
)
def test_the_papers_discriminators_have_its_patches_and_receptive_fields(
    layers: str, size: tuple[int, int], found: tuple[int, int], field: int
) -> None:
    with torch.no_grad():
        assert PatchDiscriminator(1, layers)(torch.zeros(1, 1, *size)).shape == (1, *found)
    assert patches(layers, size) == found
    assert receptive_field(layers) == field


@pytest.mark.parametrize("layers", sorted(LAYERS))
def test_a_verdict_sees_its_receptive_field_and_no_more(layers: str) -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(1, layers)
    side = receptive_field(layers) * 3
    image = torch.randn(1, 1, side, side, requires_grad=True)
    verdicts = discriminator(image)
    middle = verdicts.shape[1] // 2
    verdicts[0, middle, middle].backward()
    assert image.grad is not None
    rows = image.grad[0, 0].abs().sum(1).nonzero()[:, 0]
    assert 1 < int(rows.max() - rows.min()) + 1 <= receptive_field(layers)


def test_the_papers_refiner_has_its_layers() -> None:
    refiner = Refiner(1, width=64, blocks=4)
    kernels = [tuple(p.shape) for name, p in refiner.named_parameters() if name.endswith("weight")]
    assert kernels == [(64, 1, 3, 3), *[(64, 64, 3, 3)] * 8, (1, 64, 1, 1)]


@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_new_refiner_is_the_identity(fold: int, channels: int) -> None:
    images = torch.rand(2, channels, 8, 12) * 2 - 1
    assert torch.equal(Refiner(channels, width=4, blocks=1, fold=fold)(images), images)


def test_a_folded_refiner_sees_fold_times_as_far() -> None:
    def reach(fold: int) -> int:
        torch.manual_seed(0)
        refiner = Refiner(1, width=8, blocks=1, fold=fold)
        for parameter in refiner.parameters():
            torch.nn.init.normal_(parameter)
        image = torch.randn(1, 1, 64, 64, requires_grad=True)
        refiner(image)[0, 0, 32, 32].backward()
        assert image.grad is not None
        rows = image.grad[0, 0].abs().sum(1).nonzero()[:, 0]
        return int(rows.max() - rows.min()) + 1

    assert (reach(1), reach(2)) == (7, 14)


def test_self_regularisation_takes_a_refiner_out_of_the_constant_background() -> None:
    torch.manual_seed(0)
    images = torch.where(torch.rand(8, 1, 8, 8) > 0.7, 1.0, -1.0)
    refiner = Refiner(1, width=8, blocks=1)
    torch.nn.init.constant_(refiner.output.bias, -1.0)  # type: ignore[arg-type]  # ink is grey, background off the scale
    optimizer = torch.optim.Adam(refiner.parameters(), 3e-2)
    for _ in range(60):
        optimizer.zero_grad()
        (refiner(images) - images).abs().mean().backward()
        optimizer.step()
    assert (refiner(images) - images).abs().mean() < 0.1  # the constant -1 would have 0.6


def test_the_verdicts_of_a_new_discriminator_differ_between_patches() -> None:
    torch.manual_seed(0)  # a head of 1×1 convolutions that is constant from the start never learns
    assert PatchDiscriminator(1, "gaze")(torch.randn(1, 1, 32, 32)).std() > 1e-3


@pytest.mark.parametrize(("blocks", "stem", "field"), [(4, 3, 19), (10, 7, 47)])  # gaze and hand pose
def test_a_pixel_of_the_papers_refiners_depends_on_its_receptive_field_and_no_more(
    blocks: int, stem: int, field: int
) -> None:
    torch.manual_seed(0)
    refiner = Refiner(1, width=4, blocks=blocks, stem=stem)
    for name, parameter in refiner.named_parameters():  # all positive: no ReLU hides a pixel, nothing cancels
        torch.nn.init.uniform_(parameter, 0.01, 0.1 if "weight" in name else 0.02)
    image = torch.rand(1, 1, 71, 71, requires_grad=True)
    refiner(image)[0, 0, 35, 35].backward()
    assert image.grad is not None
    for axis in (0, 1):
        touched = image.grad[0, 0].abs().sum(axis).nonzero()[:, 0]
        assert int(touched.max() - touched.min()) + 1 == field
    assert refiners.receptive_field(blocks=blocks, stem=stem) == field


@pytest.mark.parametrize(("layers", "field"), [("gaze", 23), ("hand", 71)])
def test_a_patch_depends_on_its_whole_receptive_field(layers: str, field: int) -> None:
    """With positive weights on an image that rises towards one corner, the maxima of the pools reach that corner; with
    one that falls, the other: together they span the field."""
    discriminator, touched = PatchDiscriminator(1, layers), torch.zeros(213)
    for name, parameter in discriminator.named_parameters():
        torch.nn.init.constant_(parameter, 0.01 if "weight" in name else 0.0)
    ramp = torch.linspace(0.1, 1, 213)
    for image in (ramp, ramp.flip(0)):
        pixels = (image[:, None] * image[None]).view(1, 1, 213, 213).clone().requires_grad_()
        verdicts = discriminator(pixels)
        verdicts[0, verdicts.shape[1] // 2, verdicts.shape[2] // 2].backward()
        assert pixels.grad is not None
        touched += pixels.grad[0, 0].abs().sum(1)
    rows = touched.nonzero()[:, 0]
    assert int(rows.max() - rows.min()) + 1 == field


@pytest.mark.parametrize("layers", sorted(LAYERS))
def test_a_global_discriminator_judges_an_image_once_from_all_of_its_pixels(layers: str) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 70, 50, requires_grad=True)
    verdicts = ImageDiscriminator(3, layers, (70, 50))(images)
    assert verdicts.shape == (2, 1, 1)
    verdicts[0].sum().backward()
    assert images.grad is not None and not images.grad[1].any()
    rows = images.grad[0].abs().sum((0, 2)).nonzero()[:, 0]
    assert rows.min() < 6 and rows.max() > 63
