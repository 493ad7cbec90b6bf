"""Features of images by index: those of a plain pass in blocks; what is wrong with an image is told as such."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cluster_jobs.cli.config import CommandKeys
from cluster_jobs.core.errors import DamagedSample, UserError
from cluster_jobs.distributed.job import Job
from s3gan.metrics.encoder_features import FeaturesNotFiniteError, encoder_features

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 1, 4, 4)).astype(np.uint8)


class Means(nn.Module):
    """The mean of every channel of an image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


@pytest.fixture
def job() -> Job:
    return Job.open(CommandKeys(threads=1))


def test_features_come_in_the_order_of_the_images_whatever_the_block(job: Job) -> None:
    expected = torch.from_numpy(IMAGES).float().div(127.5).sub(1).mean((2, 3))
    for block in (1, 3, 7, 20):
        found = encoder_features(job, Means(), lambda indices: IMAGES[indices], 7, (1, 4, 4), block, "images")
        torch.testing.assert_close(found, expected)


def test_features_that_are_not_finite_have_an_error_of_their_own(job: Job) -> None:
    class Broken(Means):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 0

    with pytest.raises(FeaturesNotFiniteError, match="features of the images are not finite"):
        encoder_features(job, Broken(), lambda indices: IMAGES[indices], 7, (1, 4, 4), 3, "images")


def test_a_damaged_image_stays_a_damaged_image(job: Job) -> None:
    def damaged(indices: range) -> np.ndarray:
        raise DamagedSample("000003/00000012: cannot be decoded")

    with pytest.raises(DamagedSample) as caught:
        encoder_features(job, Means(), damaged, 7, (1, 4, 4), 3, "images")
    assert isinstance(caught.value, UserError) and not isinstance(caught.value, FeaturesNotFiniteError)
