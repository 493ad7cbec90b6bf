import pytest
import torch

from selfsup.encoders.resnet import build_encoder
from simgan.training.losses import self_regularisation
from simgan.training.psi import NAMED, Psi, PsiName, psi_of_encoder
from simgan.training.published_lambda import PUBLISHED


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.rand(shape) * 2 - 1, torch.rand(shape) * 2 - 1


def change(name: str, refined: torch.Tensor, synthetic: torch.Tensor) -> torch.Tensor:
    return self_regularisation(refined, synthetic, NAMED[PsiName[name]])


def test_the_image_gradient_is_compared_neighbour_by_neighbour() -> None:
    one, other = pair(2, 3, 4, 5)
    total, entries = torch.zeros(2), 3 * (3 * 5 + 4 * 4)
    for y in range(4):
        for x in range(5):
            for down, right in ((1, 0), (0, 1)):
                if y + down < 4 and x + right < 5:
                    steps = [image[:, :, y + down, x + right] - image[:, :, y, x] for image in (one, other)]
                    total += (steps[0] - steps[1]).abs().sum(1)
    torch.testing.assert_close(change("gradient", one, other), total / entries * 3 * 4 * 5)


def test_the_colour_mean_is_one_number_a_channel() -> None:
    one, other = pair(2, 3, 4, 5)
    means = torch.stack([(one[:, c].mean((1, 2)) - other[:, c].mean((1, 2))).abs() for c in range(3)], 1)
    torch.testing.assert_close(change("colour_mean", one, other), means.mean(1) * 60)


def test_what_each_psi_leaves_free() -> None:
    image, _ = pair(1, 3, 6, 6)
    brighter, mirrored = image + 0.2, image.flip(3)
    assert change("identity", brighter, image).item() == pytest.approx(0.2 * 108, rel=1e-4)
    assert change("gradient", brighter, image).item() == pytest.approx(0, abs=1e-3)
    assert change("colour_mean", brighter, image).item() == pytest.approx(0.2 * 108, rel=1e-4)  # as the identity
    assert change("colour_mean", mirrored, image).item() == pytest.approx(0, abs=1e-3)
    assert change("identity", mirrored, image).item() > 1 and change("gradient", mirrored, image).item() > 1


def test_a_frozen_encoder_is_asked_and_left_as_it_is() -> None:
    encoder = build_encoder("resnet8", 1, 4)
    psi: Psi = psi_of_encoder(encoder)
    refined, synthetic = pair(2, 1, 9, 14)
    before = [value.clone() for value in encoder.state_dict().values()]
    loss = self_regularisation(refined.requires_grad_(), synthetic, psi)
    with torch.no_grad():
        expected = (encoder(refined) - encoder(synthetic)).abs().mean(1) * 9 * 14
    torch.testing.assert_close(loss.detach(), expected)
    loss.sum().backward()
    assert refined.grad is not None and refined.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, encoder.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("carpedm20", 0.5),
        ("mjdietzx", 6.45),
        ("daniel_merrick", 0.033),
        ("daniel_merrick_readme", 0.049),
        ("shinseung428", 0.1),
    ],
)
def test_the_published_weights_are_known_in_our_convention(name: str, expected: float) -> None:
    assert PUBLISHED[name].here() == pytest.approx(expected, rel=0.01)


def test_published_weights_differ_two_hundredfold_and_depend_on_the_images() -> None:
    weights = [published.here() for published in PUBLISHED.values()]
    assert 150 < max(weights) / min(weights) < 250
    assert PUBLISHED["daniel_merrick"].here(patches=64, pixels=1024) == pytest.approx(0.5 * 64 / 1024)
