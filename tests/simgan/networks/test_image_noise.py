import numpy as np
import torch

from simgan.networks.image_noise import image_noise, scrambled
from simgan.networks.refiner import Refiner


def pictures(count: int) -> torch.Tensor:
    levels = torch.randint(0, 256, (count, 1, 35, 55), generator=torch.Generator().manual_seed(0))
    return levels / 127.5 - 1


def test_a_picture_has_the_same_noise_in_whatever_batch() -> None:
    images = pictures(6)
    assert torch.equal(image_noise(images[2:4], 2), image_noise(images, 2)[2:4])


def test_the_noise_is_standard_normal_and_its_values_have_nothing_to_do_with_one_another() -> None:
    noise = image_noise(pictures(40), 2).double()
    count = noise.numel()
    assert abs(noise.mean()) < 4 / count**0.5
    assert abs(noise.square().mean() - 1) < 4 * (2 / count) ** 0.5
    assert abs(noise.pow(4).mean() - 3) < 4 * (96 / count) ** 0.5
    for one, other in (
        (noise[:, 0], noise[:, 1]),
        (noise[..., 1:], noise[..., :-1]),
        (noise[:, :, 1:], noise[:, :, :-1]),
        (noise[1:], noise[:-1]),
    ):
        assert abs((one * other).mean()) < 4 / one.numel() ** 0.5


def test_one_grey_level_more_anywhere_is_another_noise() -> None:
    image = pictures(1).clamp(max=0.9)
    for place in ((0, 0), (17, 30), (34, 54)):
        other = image.clone()
        other[0, 0, place[0], place[1]] += 1 / 127.5
        joined = torch.stack([image_noise(picture, 1).flatten() for picture in (image, other)])
        assert abs(torch.corrcoef(joined)[0, 1]) < 4 / joined.shape[1] ** 0.5


def test_two_pictures_of_which_pixels_were_exchanged_differ_in_their_noise() -> None:
    image = pictures(1)
    assert not torch.equal(image_noise(image, 1), image_noise(image.flip(-1), 1))


def test_scrambling_is_the_hash_of_its_definition_in_32_bits() -> None:
    values = np.array([0, 1, 2**31, 2**32 - 1, 123456789], np.uint64)
    expected = []
    for value in values.tolist():
        value = ((value ^ (value >> 16)) * 0x7FEB352D) % 2**32
        value = ((value ^ (value >> 15)) * 0x846CA68B) % 2**32
        expected.append(value ^ (value >> 16))
    assert scrambled(torch.from_numpy(values.astype(np.int64))).tolist() == expected


def test_a_refiner_with_noise_begins_as_the_identity_and_can_use_it() -> None:
    images = pictures(4)
    refiner = Refiner(1, width=4, blocks=1, noise=1)
    assert torch.equal(refiner(images), images)
    flat = torch.zeros(1, 1, 35, 55)
    torch.nn.init.normal_(refiner.output.weight, generator=torch.Generator().manual_seed(1))
    assert refiner(flat).std() > 0.01  # without noise a flat picture stays flat but for its edges
    bare = Refiner(1, width=4, blocks=1)
    torch.nn.init.normal_(bare.output.weight, generator=torch.Generator().manual_seed(1))
    assert bare(flat)[..., 8:-8, 8:-8].std() < 1e-6
