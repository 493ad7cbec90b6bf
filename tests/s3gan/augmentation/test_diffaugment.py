import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from cluster_jobs.core.errors import UserError
from s3gan.augmentation.ada import AdaptiveAugmentation
from s3gan.augmentation.diffaugment import (
    AUGMENTATIONS,
    Augmentation,
    AugmentationName,
    DiffAugment,
    NoAugmentation,
    Setting,
    consistency_transform,
)

ALL: dict[str, Augmentation] = {
    "none": NoAugmentation(),
    "diffaugment": DiffAugment(),
    "ada": AdaptiveAugmentation(batch=8, p=0.8),
    "consistency": consistency_transform,
}


def images_and_noise(augment: Augmentation, count: int, channels: int = 3, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = 2 * torch.rand(count, channels, size, size, generator=generator) - 1
    return images, torch.rand(count, augment.draws, generator=generator)


# What holds of every augmentation


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_an_augmented_image_depends_on_its_own_row_alone(name: str, channels: int) -> None:
    images, noise = images_and_noise(ALL[name], 12, channels)
    together = ALL[name](images, noise)
    assert together.shape == images.shape
    parts = [ALL[name](images[rows], noise[rows]) for rows in (slice(0, 5), slice(5, 6), slice(6, 12))]
    torch.testing.assert_close(torch.cat(parts), together, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_flows_to_the_images_and_through_a_second_time(name: str) -> None:
    images, noise = images_and_noise(ALL[name], 3)
    images = images.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ALL[name](x, noise), images, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: ALL[name](x, noise).tanh(), images, fast_mode=True)


@pytest.mark.parametrize("name", ALL)
def test_autocast_half_precision_and_channels_last_change_no_more_than_rounding(name: str) -> None:
    images, noise = images_and_noise(ALL[name], 4)
    images = images.bfloat16().float()
    expected = ALL[name](images, noise)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = ALL[name](images.to(memory_format=torch.channels_last), noise)
        low = ALL[name](images.bfloat16(), noise)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-6)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected.bfloat16().float(), rtol=0, atol=0.04)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_no_call_waits_for_the_device(name: str) -> None:
    augment = AUGMENTATIONS[name](Setting(batch=8, rotation=False))
    if isinstance(augment, AdaptiveAugmentation):  # tensors without values raise wherever a value is asked for
        augment.to("meta").observe(torch.zeros((), device="meta"))
    images = torch.zeros(4, 3, 32, 32, device="meta", requires_grad=True)
    augment(images, torch.zeros(4, augment.draws, device="meta")).sum().backward()
    assert images.grad is not None and images.grad.shape == images.shape


def test_the_augmentation_names_are_those_of_the_table() -> None:
    assert {name.name for name in AugmentationName} == {"none", "diffaugment", "ada"}


def test_no_augmentation_draws_nothing_and_returns_its_images() -> None:
    images, noise = images_and_noise(ALL["none"], 2)
    assert noise.shape == (2, 0) and ALL["none"](images, noise) is images


# DiffAugment, written again for one image at a time, after the paper's public code


def naive_color(image: Tensor, u: Sequence[float]) -> Tensor:
    image = image + (u[0] - 0.5)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            grey = image[:, y, x].mean()
            image[:, y, x] = (image[:, y, x] - grey) * (u[1] * 2) + grey
    return (image - image.mean()) * (u[2] + 0.5) + image.mean()


def naive_translation(image: Tensor, u: Sequence[float]) -> Tensor:
    _, height, width = image.shape
    reach = int(height * 0.125 + 0.5), int(width * 0.125 + 0.5)
    down, right = (math.floor(u[i] * (2 * reach[i] + 1)) - reach[i] for i in (0, 1))
    result = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y + down < height and 0 <= x + right < width:
                result[:, y, x] = image[:, y + down, x + right]
    return result


def naive_cutout(image: Tensor, u: Sequence[float]) -> Tensor:
    _, height, width = image.shape
    cut = int(height * 0.5 + 0.5), int(width * 0.5 + 0.5)
    offset = [math.floor(u[i] * (size + 1 - cut[i] % 2)) for i, size in enumerate((height, width))]
    result = image.clone()
    for i in range(cut[0]):
        for j in range(cut[1]):
            y = min(max(i + offset[0] - cut[0] // 2, 0), height - 1)
            x = min(max(j + offset[1] - cut[1] // 2, 0), width - 1)
            result[:, y, x] = 0
    return result


NAIVE = {"color": (3, naive_color), "translation": (2, naive_translation), "cutout": (2, naive_cutout)}


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (3, 9, 13), (1, 14, 6)])
@pytest.mark.parametrize("policy", ["color", "translation", "cutout", "color,translation,cutout", "cutout,color"])
def test_diffaugment_is_the_published_maths(policy: str, shape: tuple[int, int, int]) -> None:
    augment = DiffAugment(policy)
    generator = torch.Generator().manual_seed(3)
    images, noise = (torch.rand(size, generator=generator) for size in ((16, *shape), (16, augment.draws)))
    noise[0], noise[1] = 0, 1 - 2**-24  # the least and the greatest number that torch draws
    expected = []
    for image, row in zip(images, noise.tolist(), strict=True):
        for name in policy.split(","):
            count, change = NAIVE[name]
            image, row = change(image.clone(), row[:count]), row[count:]
        expected.append(image)
    torch.testing.assert_close(augment(images, noise), torch.stack(expected), rtol=0, atol=1e-5)


def test_an_unknown_policy_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="'colour' is none of color, translation, cutout"):
        DiffAugment("colour,cutout")


# The transform of consistency regularisation


def test_consistency_mirrors_and_moves_by_an_eighth_and_reflects_what_moves_in() -> None:
    image = torch.arange(16.0 * 16).view(1, 1, 16, 16)
    still, u_down, u_left = 0.5, 0.99, 0.01  # an eighth of 16 is 2, so a number is in fifths
    moved = consistency_transform(image, torch.tensor([[u_down, u_left, 0.9]]))
    assert torch.equal(moved[..., 2:, :-2], image[..., :-2, 2:])
    assert torch.equal(moved[..., 0, :-2], image[..., 2, 2:]) and torch.equal(moved[..., 1, :-2], image[..., 1, 2:])
    assert torch.equal(consistency_transform(image, torch.tensor([[still, still, 0.9]])), image)
    assert torch.equal(consistency_transform(image, torch.tensor([[still, still, 0.4]])), image.flip(3))


def test_consistency_draws_every_shift_alike() -> None:
    noise = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0))
    noise[:, 2] = 0.9
    columns = torch.arange(16.0).expand(4000, 1, 1, 16)
    shifts = 8 - consistency_transform(columns, noise)[:, 0, 0, 8]
    counts = torch.bincount((shifts + 2).long())
    assert len(counts) == 5 and (counts - 800).abs().max() < 120
