"""The transform of consistency regularisation."""

import torch

from s3gan.augmentation.flip_and_shift import consistency_transform


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
