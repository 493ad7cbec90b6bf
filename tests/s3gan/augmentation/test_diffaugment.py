"""DiffAugment against the same written again for one image at a time, after the paper's public code."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from cluster_jobs.core.errors import UserError
from s3gan.augmentation.diffaugment import DiffAugment


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
