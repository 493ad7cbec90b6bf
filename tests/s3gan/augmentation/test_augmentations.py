"""What holds of every augmentation."""

import pytest
import torch
from torch import Tensor

from s3gan.augmentation import AUGMENTATIONS, AugmentationName, Setting
from s3gan.augmentation.ada import AdaptiveAugmentation
from s3gan.augmentation.base import Augmentation, NoAugmentation
from s3gan.augmentation.diffaugment import DiffAugment
from s3gan.augmentation.flip_and_shift import consistency_transform

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
