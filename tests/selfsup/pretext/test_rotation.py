import numpy as np
import torch
from torch.nn import functional as F

from selfsup.encoders.resnet import build_encoder
from selfsup.pretext.rotation import RotationTask, rotate_all, rotation_accuracy, rotation_losses


def test_rotations_are_those_of_numpy_and_the_upright_pictures_come_first():
    images = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4)
    turned, targets = rotate_all(images)
    expected = np.concatenate([np.rot90(images.numpy(), turns, (2, 3)) for turns in range(4)])
    assert np.array_equal(turned.numpy(), expected)
    assert targets.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_pictures_loss_and_score_are_means_over_its_four_rotations():
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    logits[[0, 2], [0, 1]] = 9.0  # of picture 0, the first two rotations are right
    logits[[4, 6], [0, 0]] = 9.0  # and the last two wrong
    _, targets = rotate_all(torch.zeros(2, 1, 4, 4))
    by_hand = [F.cross_entropy(logits[[n, n + 2, n + 4, n + 6]], torch.arange(4)) for n in range(2)]
    torch.testing.assert_close(rotation_losses(logits, targets), torch.stack(by_hand))
    assert rotation_accuracy(logits, targets)[0] == 0.5


def test_the_sheet_shows_four_tiles_a_picture_in_grey_and_in_colour():
    for channels in (1, 3):
        module = RotationTask().module(build_encoder("resnet8", channels, 2))
        torch.nn.init.zeros_(module.heads.weight)
        images = torch.zeros(5, channels, 8, 8, dtype=torch.uint8)
        tiles, columns = RotationTask().sheet(module, images, rotate_all(images.float()))
        assert tiles.dtype == np.uint8 and tiles.shape[:2] == (20, channels) and columns == 5
        right, wrong = tiles[0], tiles[5]  # every guess is 0 degrees; captions differ
        assert not np.array_equal(right, wrong)
