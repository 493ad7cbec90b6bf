"""Scores during training: how far the averaged generator's samples are from the validation part of the training set.

Distances are measured on the features of an encoder that the user names, for example one of selfsup.pretrain, which saw
no label. The validation part is the key-hashed 5 % on which choices may be made; no hidden label and no test image is
used, so a checkpoint may be chosen by it. The part is also trained on unless `hold_out` is set: a generator that has
learnt its images by heart then scores well.

`fd_encoder5k_val` is a Frechet distance of 5,000 samples, `kd_encoder5k_val` the kernel distance. They compare within
runs that share encoder and data; RUN/validation/protocol.json says which these are.
"""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.core.seeds import derive_seed, is_validation
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.run import Run
from s3gan.inference.sampling import block_size, draw_noise, make_images, plan_labels
from s3gan.inference.standing_statistics import settle
from s3gan.metrics.encoder_features import FeaturesNotFiniteError, encoder_features
from s3gan.metrics.frechet import FeatureStatistics, distance_between
from s3gan.metrics.kernel import kernel_distance
from s3gan.metrics.labelled import choose, digest
from s3gan.metrics.score import amount
from s3gan.metrics.trained import cached_state
from s3gan.networks import Generator
from s3gan.training.conditioning import Conditions
from s3gan.training.config import TrainConfig
from selfsup.encoders.loading import ScriptedEncoder, load_encoder
from selfsup.encoders.resnet import Encoder
from selfsup.labelling.classifier import ShardPictures

REFERENCE_LIMIT = 50_000  # validation images behind a score, at most


@dataclass(frozen=True)
class ValidationEncoder:
    """The encoder whose features are compared, and the SHA-256 of what makes it."""

    network: Encoder | ScriptedEncoder
    sha256: str
    description: str


def read_validation_encoder(config: TrainConfig, shards: Shards) -> ValidationEncoder | None:
    """The encoder that `eval_encoder` names, on the host; None without one.

    Raises:
        UserError: there is nothing to load, or it does not fit the images.
    """
    if not config.eval_encoder:
        return None
    path = Path(config.eval_encoder)
    try:
        encoder, description = load_encoder(path, shards.channels, "cpu", size=shards.size)
    except UserError as error:
        raise UserError(f"eval_encoder: {error}") from error
    if path.is_file():
        return ValidationEncoder(encoder, hashlib.sha256(path.read_bytes()).hexdigest(), description)
    return ValidationEncoder(
        encoder, digest(*(tensor.numpy() for tensor in encoder.state_dict().values())), description
    )


def training_subset(config: TrainConfig, subset: np.ndarray | None, shards: Shards) -> np.ndarray | None:
    """The samples to train on, of those that the method takes (None: all): with `hold_out` none of the validation part.

    Raises:
        UserError: nothing is left.
    """
    if not config.hold_out:
        return subset
    kept = np.setdiff1d(np.arange(len(shards)) if subset is None else subset, validation_indices(shards))
    if not len(kept):
        raise UserError(f"hold_out=true: no sample of data={config.data} outside the validation part")
    return kept


def validation_indices(shards: Shards) -> np.ndarray:
    """The samples of the validation part, ascending int64."""
    return np.flatnonzero([is_validation(name) for name in shards.keys(0)])


class Validation:
    """Scores a generator in training. Every rank makes one and calls it; the work is shared out, the scores are equal
    for any number of ranks.

    Raises:
        UserError: the validation part is too small, or the run was started with another encoder.
    """

    def __init__(
        self, run: Run[TrainConfig], encoder: ValidationEncoder, shards: Shards, conditions: Conditions
    ) -> None:
        self.run, self.config = run, run.config
        self.encoder = encoder.network.to(run.device)
        self.block = block_size(shards.size)
        self.shape = shards.channels, shards.size, shards.size
        self.conditions = conditions  # a re-clustering changes its counts and weights
        self.suffix = f"_encoder{amount(self.config.eval_count)}_val"
        self._freeze_protocol(encoder, shards)
        self.reference = self._reference(encoder, shards)
        self.statistics = FeatureStatistics.of(self.reference)
        run.say(
            f"fd{self.suffix} and kd{self.suffix} every {self.config.eval_nimg:,} images: samples against "
            f"{len(self.reference):,} validation images on features of {encoder.description}"
        )

    def score(self, average: Generator, nimg: int) -> float:
        """The mean over sample seeds of the distance that `best_by` names; all are recorded. `average` stays as it is.

        The same seeds every time, so that two evaluations of a run differ by the generator alone.
        """
        generator = settle(copy.deepcopy(average), self.conditions.weights)
        scores = [self._distances(generator, number) for number in range(self.config.eval_seeds)]
        values, texts = {}, []
        for kind in scores[0]:
            repeats = [score[kind] for score in scores]
            name = f"{kind}{self.suffix}"
            values[name] = float(np.mean(repeats))
            texts.append(f"{name} {values[name]:.4f}")
            if len(repeats) > 1:
                values[f"{name}_sd"] = float(np.std(repeats, ddof=1))
                texts[-1] += f" ± {values[f'{name}_sd']:.4f}"
        self.run.record(nimg, values)
        seeds = f"{len(scores)} sample seeds" if len(scores) > 1 else "1 sample seed"
        self.run.say(f"{nimg:,} images: {', '.join(texts)} ({seeds})")
        return values[f"{self.config.best_by.name}{self.suffix}"]

    def _distances(self, generator: Generator, number: int) -> dict[str, float]:
        """Frechet and kernel distance of the samples of one seed."""
        seed = derive_seed(self.config.seed, "validation", number)
        shares = np.asarray(self.conditions.counts, float) / sum(self.conditions.counts)
        labels = plan_labels(self.config.eval_count, shares, seed).astype(np.int64)

        def draw(indices: range) -> np.ndarray:
            noise, chosen = draw_noise(seed, indices, generator.z_dim), labels[indices.start : indices.stop]
            return make_images(generator, noise, torch.from_numpy(chosen), self.block, self.run.device)

        samples = self._features(draw, len(labels), "validation samples")
        return {
            "fd": distance_between(FeatureStatistics.of(samples), self.statistics),
            "kd": kernel_distance(samples, self.reference)[0],
        }

    def _reference(self, encoder: ValidationEncoder, shards: Shards) -> Tensor:
        """The validation part's features (N, F) float32 on the device, computed once per run."""
        indices = validation_indices(shards)
        if len(indices) < 2:
            raise UserError(f"eval_encoder: {len(indices)} images of {shards.directory} are validation, expected 2")
        pictures = ShardPictures(shards, indices[choose(len(indices), REFERENCE_LIMIT, 0)], self.config.damaged.name)

        def make() -> dict[str, Any]:
            def read(indices: range) -> np.ndarray:
                return pictures[np.asarray(indices)].numpy()

            return {"features": self._features(read, len(pictures), "validation part").cpu()}

        made_of = {"encoder": encoder.sha256, "data": shards.fingerprint, "count": len(pictures)}
        state, _ = cached_state(self.run.dir / "validation", "reference", made_of, make, self.run)
        return state["features"].to(self.run.device)

    def _features(self, make_images: Callable[[range], np.ndarray], count: int, what: str) -> Tensor:
        """Features (count, F) float32 on the device of `count` images by index. Every rank must call this."""
        try:
            return encoder_features(self.run, self.encoder, make_images, count, self.shape, self.block, what)
        except FeaturesNotFiniteError as error:
            raise UserError(f"eval_encoder={self.config.eval_encoder}: its {error}") from error

    def _freeze_protocol(self, encoder: ValidationEncoder, shards: Shards) -> None:
        """Writes how the scores are computed; refuses an encoder that has changed since the run began."""
        protocol = {
            "encoder": encoder.description,
            "encoder_sha256": encoder.sha256,
            "split": "the validation part (5 %, by key) of the training set",
            "data_fingerprint": shards.fingerprint,
            "samples": self.config.eval_count,
            "sample_seeds": self.config.eval_seeds,
            "pixels": shards.size,
        }
        path = self.run.dir / "validation" / "protocol.json"
        if path.is_file() and read_json(path)["encoder_sha256"] != encoder.sha256:
            raise UserError(
                f"eval_encoder={self.config.eval_encoder} is not the encoder that {self.run.dir} was started with: its "
                "scores would not compare; put that one back, or choose a new run.dir"
            )
        self.run.barrier()  # every rank has compared before one writes
        self.run.on_main(lambda: write_json(path, protocol))
