"""Features of images that are made or read block by block, shared out over ranks, the same for any number of them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from cluster_jobs.data.images import to_float
from cluster_jobs.distributed.job import Job


class FeaturesNotFiniteError(ValueError):
    """An encoder gives features that are not finite."""


@torch.no_grad()
def encoder_features(
    job: Job,
    encoder: nn.Module,
    make_images: Callable[[range], np.ndarray],
    count: int,
    shape: tuple[int, int, int],
    block: int,
    what: str,
) -> Tensor:
    """Features (count, F) float32 on the device of `count` images by index. Every rank must call this.

    Args:
        make_images: from a range of 1 to `block` indices to their images, uint8 (n, C, H, W).
        shape: (C, H, W) of the images.
        block: images per forward pass on every rank; the last ones are padded, as results may depend on that number.
        what: the images are, for the progress bar.

    Raises:
        FeaturesNotFiniteError: features that are not finite.
    """
    step, gathered = block * job.world, []
    for start in job.track(range(0, count, step), count, "images", what, step):
        first = min(start + job.rank * block, count)
        indices = range(first, min(first + block, count))
        images = torch.zeros(block, *shape, dtype=torch.uint8)
        if len(indices):
            images[: len(indices)] = torch.from_numpy(make_images(indices))
        features = encoder(to_float(images, job.device))[: len(indices)]
        gathered.append(job.gather(features.float().contiguous()))
    table = torch.cat(gathered)
    if not bool(table.isfinite().all()):
        raise FeaturesNotFiniteError(f"features of the {what} are not finite")
    return table
