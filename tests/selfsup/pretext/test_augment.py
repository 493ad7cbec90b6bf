import numpy as np
import torch

from selfsup.pretext.augment import AugmentationDraws, apply, draw


def test_pictures_move_by_their_offsets_and_reflect_at_the_border():
    images = torch.arange(3 * 2 * 5 * 5).view(3, 2, 5, 5)
    offsets = [(2, -1), (0, 0), (-2, 2)]
    moved = apply(images, AugmentationDraws(torch.tensor(offsets), torch.tensor([False, False, True])))
    for image, result, (down, right), mirror in zip(images, moved, offsets, (False, False, True), strict=True):
        source = image.numpy()[:, :, ::-1] if mirror else image.numpy()
        padded = np.pad(source, ((0, 0), (2, 2), (2, 2)), mode="reflect")
        expected = padded[:, 2 - down : 7 - down, 2 - right : 7 - right]
        assert np.array_equal(result.numpy(), expected)


def test_draws_depend_on_their_key_alone_and_cover_the_range():
    first, again, other = draw(500, 2, True, 0, "a"), draw(500, 2, True, 0, "a"), draw(500, 2, True, 0, "b")
    assert torch.equal(first.offsets, again.offsets) and torch.equal(first.mirror, again.mirror)
    assert not torch.equal(first.offsets, other.offsets)
    assert first.offsets.unique().tolist() == [-2, -1, 0, 1, 2]
    assert 200 < first.mirror.sum() < 300
    assert not draw(500, 2, False, 0, "a").mirror.any()


def test_a_slice_of_the_draws_does_to_its_pictures_what_the_whole_does():
    images = torch.rand(6, 1, 8, 8)
    draws = draw(6, 3, True, 1)
    assert torch.equal(apply(images, draws)[2:4], apply(images[2:4], draws[2:4]))
