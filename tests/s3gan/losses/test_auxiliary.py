"""Losses of auxiliary heads in numbers, and quarter turns."""

import math

import torch

from s3gan.losses.auxiliary import quarter_turns, rotation_loss


def test_ignorant_logits_cost_the_logarithm_of_four() -> None:
    loss = rotation_loss(torch.zeros(4, 4), torch.arange(4))
    torch.testing.assert_close(loss, torch.full((4,), math.log(4)))


def test_four_quarter_turns_are_none() -> None:
    images = torch.randn(2, 3, 5, 5)
    once, twice, thrice = quarter_turns(images).split(2)
    assert torch.equal(once[0, 0, 0], images[0, 0, :, -1])  # counter-clockwise: the last column becomes the first row
    assert torch.equal(twice, images.flip(2, 3))
    assert torch.equal(thrice.rot90(1, (2, 3)), images)


def test_no_images_have_no_turns() -> None:
    assert quarter_turns(torch.randn(0, 1, 4, 4)).shape == (0, 1, 4, 4)
