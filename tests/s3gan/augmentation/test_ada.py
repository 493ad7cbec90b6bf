import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cluster_jobs.training.checkpoint import load_state, save_state
from s3gan.augmentation.ada import AMOUNTS, OPERATIONS, AdaptiveAugmentation

NAMES = [operation.name for operation in OPERATIONS]
NEUTRAL = torch.tensor([value for operation in OPERATIONS for value in operation.neutral])


def draw(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, AdaptiveAugmentation.draws, generator=torch.Generator().manual_seed(seed))


def picture(count: int, channels: int = 3, height: int = 12, width: int = 12, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(count, channels, height, width, generator=generator) - 1


def numbers(**amounts: list[float]) -> Tensor:
    """A row of noise: the named operations on, with their amounts; the others off."""
    switches = [0.0 if name in amounts else 1.0 for name in NAMES]
    values = [number for o in OPERATIONS for number in amounts.get(o.name, list(o.neutral))]
    return torch.tensor([switches + values])


# Naive versions for one image in float64: homogeneous matrices multiplied one after the other, as in the paper's figure


def normal(u: float) -> float:
    return torch.special.ndtri(torch.tensor(u, dtype=torch.double)).item()


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.double)


def turn(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return matrix([c, -s, 0], [s, c, 0], [0, 0, 1])


def move(x: float, y: float) -> Tensor:
    return matrix([1, 0, x], [0, 1, y], [0, 0, 1])


def scale(x: float, y: float) -> Tensor:
    return matrix([x, 0, 0], [0, y, 0], [0, 0, 1])


def reflect(place: int, size: int) -> int:
    while not 0 <= place < size:
        place = -place if place < 0 else 2 * (size - 1) - place
    return place


def naive_geometry(image: Tensor, a: dict[str, list[float]]) -> Tensor:
    """Maps the image forward step by step, then asks where each pixel came from."""
    _, height, width = image.shape
    stretch, zoom = 2 ** (0.2 * normal(a["stretch"][0])), 2 ** (0.2 * normal(a["scale"][0]))
    forward = scale(1 - 2 * math.floor(2 * a["flip"][0]), 1)
    forward = turn(-math.pi / 2 * math.floor(4 * a["quarter_turns"][0])) @ forward
    forward = move(*(round((2 * u - 1) / 8 * s) for u, s in zip(a["shift"], (width, height), strict=True))) @ forward
    forward = scale(zoom, zoom) @ forward
    forward = turn(-math.pi * (2 * a["turn"][0] - 1)) @ forward
    forward = scale(stretch, 1 / stretch) @ forward
    forward = turn(-math.pi * (2 * a["turn_again"][0] - 1)) @ forward
    forward = move(*(normal(u) / 8 * s for u, s in zip(a["drift"], (width, height), strict=True))) @ forward
    (xx, xy, x0), (yx, yy, y0), _ = torch.linalg.inv(forward).tolist()
    pixels, middle_x, middle_y = image.tolist(), (width - 1) / 2, (height - 1) / 2
    result = torch.empty_like(image)
    for row in range(height):
        for column in range(width):
            right, down = column - middle_x, row - middle_y
            x, y = xx * right + xy * down + x0 + middle_x, yx * right + yy * down + y0 + middle_y
            corners = [(i, j) for i in (math.floor(x), math.floor(x) + 1) for j in (math.floor(y), math.floor(y) + 1)]
            for channel, plane in enumerate(pixels):
                result[channel, row, column] = sum(
                    (1 - abs(x - i)) * (1 - abs(y - j)) * plane[reflect(j, height)][reflect(i, width)]
                    for i, j in corners
                )
    return result


def naive_colour(image: Tensor, a: dict[str, list[float]]) -> Tensor:
    """4x4 matrices on homogeneous colours; a grey image is a colour image whose channels are averaged afterwards."""
    axis = torch.tensor([1, 1, 1, 0], dtype=torch.double) / math.sqrt(3)
    along = torch.outer(axis, axis)
    one = torch.eye(4, dtype=torch.double)
    colour = one.clone()
    colour[:3, 3] = 0.2 * normal(a["brightness"][0])
    gain = 2 ** (0.5 * normal(a["contrast"][0]))
    colour = torch.diag(torch.tensor([gain, gain, gain, 1], dtype=torch.double)) @ colour
    colour = (one - 2 * along * math.floor(2 * a["inversion"][0])) @ colour
    angle = math.pi * (2 * a["hue"][0] - 1)
    cross = torch.zeros(4, 4, dtype=torch.double)
    cross[:3, :3] = matrix([0, -1, 1], [1, 0, -1], [-1, 1, 0]) / math.sqrt(3)
    colour = torch.linalg.matrix_exp(angle * cross) @ colour  # a rotation about the grey axis
    colour = (along + (one - along) * 2 ** normal(a["saturation"][0])) @ colour
    channels = len(image)
    pixels = image.expand(3, -1, -1).flatten(1)
    changed = (colour @ torch.cat([pixels, torch.ones_like(pixels[:1])]))[:3].view(3, *image.shape[1:])
    return changed.mean(0, keepdim=True) if channels == 1 else changed


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 10, 10), (1, 10, 10), (3, 9, 14)])
def test_an_augmented_image_is_that_of_the_matrices_in_the_paper(channels: int, height: int, width: int) -> None:
    p, count = 0.6, 16
    images, noise = picture(count, channels, height, width), draw(count)
    result = AdaptiveAugmentation(8, p=p)(images, noise)
    touched = set()
    for image, row, got in zip(images.double(), noise.double(), result, strict=True):
        switches, values = row.split([len(NAMES), sum(AMOUNTS)])
        amounts = dict(zip(NAMES, (part.tolist() for part in values.split(AMOUNTS)), strict=True))
        for operation, switch in zip(OPERATIONS, switches.tolist(), strict=True):
            limit = 1 - math.sqrt(1 - p) if operation.name.startswith("turn") else p
            if switch >= limit:
                amounts[operation.name] = list(operation.neutral)
            else:
                touched.add(operation.name)
        expected = naive_colour(naive_geometry(image, amounts), amounts)
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=2e-4)
    assert touched == set(NAMES)


def test_probability_zero_is_the_exact_identity() -> None:
    images = picture(64) * 3
    assert torch.equal(AdaptiveAugmentation(8)(images, draw(64)), images)


def test_every_operation_is_neutral_at_its_neutral_numbers() -> None:
    images = picture(1)
    everything_on = torch.cat([torch.zeros(len(NAMES)), NEUTRAL])[None]
    torch.testing.assert_close(AdaptiveAugmentation(8, p=1.0)(images, everything_on), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_does_something_to_a_colour_image(name: str) -> None:
    images = picture(1)
    size = len(OPERATIONS[NAMES.index(name)].neutral)
    changed = AdaptiveAugmentation(8, p=1.0)(images, numbers(**{name: [0.8] * size}))
    assert (changed - images).abs().max() > 0.05


def test_blitting_moves_pixels_without_mixing_them() -> None:
    image = picture(1, 1, 8, 8)
    augment = AdaptiveAugmentation(8, p=1.0)

    def assert_same(moved: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(moved, expected, rtol=0, atol=1e-5)

    assert_same(augment(image, numbers(flip=[0.7])), image.flip(3))
    for quarters in (1, 2, 3):
        assert_same(augment(image, numbers(quarter_turns=[quarters / 4 + 0.1])), image.rot90(quarters, (2, 3)))
    right = augment(image, numbers(shift=[0.99, 0.5]))  # by one pixel, an eighth
    assert_same(right[..., 1:], image[..., :-1])
    assert_same(right[..., 0], image[..., 1])  # reflected


@pytest.mark.parametrize(("name", "chance"), [("inversion", 0.3), ("turn", 1 - math.sqrt(0.7))])
def test_an_operation_is_on_with_its_probability(name: str, chance: float) -> None:
    images = picture(2)
    noise = numbers(**{name: [0.8]}).repeat(2, 1)
    noise[:, NAMES.index(name)] = torch.tensor([chance - 1e-4, chance + 1e-4])
    changed = AdaptiveAugmentation(8, p=0.3)(images, noise)
    assert not torch.equal(changed[0], images[0]) and torch.equal(changed[1], images[1])


def test_without_turning_an_image_stays_upright_and_unmirrored() -> None:
    ramp = torch.linspace(-1, 1, 33)
    down, right = ramp.view(1, 1, -1, 1).expand(200, 1, 33, 33), ramp.expand(200, 1, 33, 33)
    noise = draw(200)
    noise[:, NAMES.index("drift") : len(NAMES)] = 1  # geometry alone, and nothing that moves the border to the middle
    upright, free = AdaptiveAugmentation(8, p=0.99, turning=False), AdaptiveAugmentation(8, p=0.99)
    middle = slice(14, 19)
    for augment, stays in ((upright, True), (free, False)):
        rows, columns = augment(down, noise)[:, 0], augment(right, noise)[:, 0]
        straight = rows.std(2).amax() < 1e-4 and columns.std(1).amax() < 1e-4
        unmirrored = bool((columns[:, 16, middle].diff() > 0).all() and (rows[:, middle, 16].diff() > 0).all())
        assert (straight, unmirrored) == (stays, stays)


def test_a_grey_image_stays_grey_under_hue_and_saturation() -> None:
    image = picture(1, 1).expand(1, 3, 12, 12)
    changed = AdaptiveAugmentation(8, p=1.0)(image, numbers(hue=[0.9], saturation=[0.9]))
    torch.testing.assert_close(changed, image, rtol=0, atol=1e-6)


def test_the_rarest_draws_give_finite_images() -> None:
    noise = torch.stack([torch.zeros(28), torch.full((28,), 1 - 2**-24)])
    noise[:, : len(NAMES)] = 0
    images = picture(2).requires_grad_()
    result = AdaptiveAugmentation(8, p=1.0)(images, noise)
    result.sum().backward()
    assert images.grad is not None
    assert result.isfinite().all() and images.grad.isfinite().all()


# The dynamics of p


def observe(augment: AdaptiveAugmentation, *signs: float) -> float:
    for sign in signs:
        augment.observe(torch.tensor(sign))
    return augment.p.item()


def test_p_moves_by_a_fixed_step_every_fourth_observation() -> None:
    augment = AdaptiveAugmentation(batch=50, speed_nimg=1000)  # 4 * 50 / 1000 = 0.2 a step
    assert observe(augment, 1.0, 1.0, 1.0) == 0.0
    assert observe(augment, 1.0) == pytest.approx(0.2)
    assert observe(augment, 1.0, 1.0, 1.0, -0.5) == pytest.approx(0.4)  # a mean of 0.625
    assert observe(augment, 1.0, 1.0, 1.0, -0.7) == pytest.approx(0.2)  # a mean of 0.575
    assert observe(augment, *[-1.0] * 8) == 0.0  # not below 0
    assert observe(augment, *[1.0] * 16) == pytest.approx(0.8)
    assert observe(augment, *[1.0] * 8) == 1.0  # not above 1


def test_p_rises_from_zero_to_one_in_the_images_of_the_paper() -> None:
    batch = 2500
    augment = AdaptiveAugmentation(batch)
    assert observe(augment, *[0.9] * (500_000 // batch - 4)) < 1
    assert observe(augment, *[0.9] * 4) == pytest.approx(1)


def test_a_step_that_is_not_finite_is_not_observed() -> None:
    augment = AdaptiveAugmentation(batch=50, speed_nimg=1000)
    assert observe(augment, 1.0, math.nan, 1.0, math.inf, 1.0) == 0.0
    assert observe(augment, 1.0) == pytest.approx(0.2)


def test_adaptation_goes_on_from_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    signs = [0.9, 0.7, 0.65, 0.8, 0.71, 0.9, 0.3, 0.2, 0.7, 0.95, 0.9]
    whole, first, second = (AdaptiveAugmentation(batch=70, speed_nimg=1000) for _ in range(3))
    observe(whole, *signs)
    observe(first, *signs[:6])  # two into an interval
    save_state(tmp_path / "augment.safetensors", first.state_dict())
    second.load_state_dict(load_state(tmp_path / "augment.safetensors")[0])
    assert second.p == first.p != 0
    observe(second, *signs[6:])
    assert set(second.state_dict()) == {"p", "signs", "observations"}
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in second.state_dict().items())
