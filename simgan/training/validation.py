"""Scores of a refiner in training: how far refined images are from real ones, on the validation part of both domains.

The validation part is the 5 % of each training set, chosen by a hash of the key, that may be used for choices. A score
compares images alone and reads no label, neither simulated nor real, so it may choose the "best" checkpoint. It does
not show whether labels survive refining: a checkpoint whose R changes a pixel by more than `max_change` on average gets
no score and cannot be the best. Both validation parts are also trained on, because R does not memorise images.

`fd_encoder2k_val` is a Frechet distance of 2,000 images per domain on the features of `eval_encoder`; without one,
`fd_random2k_val` on those of a network with random weights (embeddings by random networks: Naeem et al. 2020, arXiv
2002.09797). These compare the checkpoints of one run, and no two runs with different encoders.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_json
from cluster_jobs.core.seeds import is_validation
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import scan
from cluster_jobs.training.frozen_config import check_facts
from cluster_jobs.training.run import CheckpointScore, Run
from s3gan.metrics.encoder_features import FeaturesNotFiniteError, encoder_features
from s3gan.metrics.frechet import distance_of_samples
from s3gan.metrics.score import amount
from selfsup.encoders.loading import weights_digest
from selfsup.encoders.resnet import build_encoder
from simgan.networks.refiner import Refiner
from simgan.networks.trained_refiner import BLOCK, refine_images
from simgan.training.config import RefinerTrainConfig

MIN_IMAGES = 2  # per domain: a covariance needs two


class RefinerValidation:
    """Scores a refiner. Every rank must call it: ranks share the work, and the scores are equal on all of them.

    Args:
        synthetic, real: validation images of the two domains, uint8 (N, C, H, W) each, at least two.
        encoder: whose features are compared, on the CPU; None for a network with random weights.

    Raises:
        UserError: the run was started with another encoder, or the encoder's features are not finite.
    """

    def __init__(
        self, run: Run[RefinerTrainConfig], synthetic: np.ndarray, real: np.ndarray, encoder: nn.Module | None
    ) -> None:
        self.run, self.max_change, self.synthetic = run, run.config.max_change, synthetic
        self.name = f"fd_{'encoder' if encoder else 'random'}{amount(len(synthetic))}_val"
        encoder = (encoder or build_encoder("resnet8", synthetic.shape[1], seed=0)).eval().requires_grad_(False)
        facts = {
            "encoder_sha256": weights_digest(encoder),
            "split": "the validation part (5 %, by key) of both domains",
        }
        path = run.dir / "validation" / "protocol.json"
        check_facts(path, facts, "another eval_encoder")
        run.barrier()  # every rank has compared before one writes
        run.on_main(lambda: write_json(path, facts))
        self.encoder = encoder.to(run.device)
        self.real = self._features(lambda indices: real[indices], len(real), "real validation images")
        run.say(
            f"{self.name} every {run.config.eval_nimg:,} images: {len(synthetic):,} refined validation images against "
            f"{len(real):,} real ones"
        )

    def score(self, refiner: Refiner, nimg: int) -> CheckpointScore | None:
        """The distance, which is also recorded; None if R changes a pixel by more than `max_change` on average."""
        change = torch.zeros((), dtype=torch.float64)

        def refined(indices: range) -> np.ndarray:
            images = self.synthetic[indices]
            result = refine_images(refiner, images, self.run.device)
            change.add_(float(np.abs(result.astype(np.float64) - images).sum() / 127.5))
            return result

        features = self._features(refined, len(self.synthetic), "refined validation images")
        distance = distance_of_samples(features, self.real)
        share = (change / self.synthetic.size).float().to(self.run.device)  # not every device has float64
        mean_change = self.run.reduce(share).item()
        self.run.record(nimg, {self.name: distance, "change/pixel_val": mean_change})
        self.run.say(f"{nimg:,} images: {self.name} {distance:.4f}, mean change of a pixel {mean_change:.3f}")
        return CheckpointScore(distance) if mean_change <= self.max_change else None

    def _features(self, make_images: Callable[[range], np.ndarray], count: int, what: str) -> Tensor:
        try:
            return encoder_features(self.run, self.encoder, make_images, count, self.synthetic.shape[1:], BLOCK, what)
        except FeaturesNotFiniteError as error:
            raise UserError(f"eval_encoder={self.run.config.eval_encoder!r}: {error}") from error


def open_validation(
    run: Run[RefinerTrainConfig], synthetic: Shards, real: Shards, encoder: nn.Module | None
) -> RefinerValidation | None:
    """The scorer of a run; None, after a line that says why, if a domain has too few validation images or `eval_count`
    is 0."""
    if not run.config.eval_count:
        run.say("no scores during training: eval_count=0")
        return None
    images = [_validation_images(shards, run.config) for shards in (synthetic, real)]
    if min(map(len, images)) < MIN_IMAGES:
        run.say(
            f"no scores during training: {len(images[0])} simulated and {len(images[1])} real images are validation "
            f"(5 %, by key), expected {MIN_IMAGES} each"
        )
        return None
    return RefinerValidation(run, images[0], images[1], encoder)


def _validation_images(shards: Shards, config: RefinerTrainConfig) -> np.ndarray:
    """The first `eval_count` images of the validation part, uint8 (N, C, H, W)."""
    indices = np.flatnonzero([is_validation(name) for name in shards.keys(0)])[: config.eval_count]
    if not len(indices):
        return np.zeros((0, *shards.shape), np.uint8)
    batches = scan(shards, len(indices), indices=indices, damaged=config.damaged.name)
    return np.concatenate([batch.images.numpy() for batch in batches])
