"""Task: printed to handwritten digits. Scored by the accuracy of a classifier that is trained on refined images."""

from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from s3gan.metrics.cas import train_and_test
from s3gan.metrics.detector import Features, features_of_pictures, features_of_shards, make_detector
from s3gan.metrics.labelled import from_arrays, from_shards
from s3gan.metrics.score import frechet_score
from simgan.tasks.digits_sections import sections
from simgan.tasks.protocol import Domains, Drift, Recipe, RefinedImages, ScoreKeys, TaskScores, check_same_shape


class Digits:
    """Ten classes with the same names in both domains. Frechet distances use a classifier of real training images."""

    def check(self, synthetic: Shards, real: Shards) -> None:
        """Raises UserError if the two data sets are not compatible."""
        check_same_shape(synthetic, real)

    def check_scoring(self, synthetic: Shards, real: Shards) -> None:
        """Raises UserError if the domains' classes differ. Not checked in training, which reads no real label."""
        self.check(synthetic, real)
        if synthetic.classes != real.classes:
            raise UserError(
                f"classes {', '.join(synthetic.classes)} in {synthetic.directory} but {', '.join(real.classes)} in "
                f"{real.directory}: a classifier of one cannot be tested on the other"
            )

    def score(self, domains: Domains, keys: ScoreKeys, cache: Path, job: Job) -> TaskScores:
        """Frechet distances, accuracies, and the share of labels that are kept.

        Labels drift if refining lowers the share of unseen images that are classified as their label by more than
        ``drift.labels``.
        """
        common: dict[str, Any] = {"recipe": keys.classifier, "seed": keys.seed, "cache": cache, "job": job}
        pool, train, test = domains.pool, domains.train, domains.test
        kept = labels_kept(domains.unseen, train, **common)
        scores = {
            "distances": distances(pool, train, test, **common),
            "accuracies": accuracies(pool, train, test, **common),
            "labels_kept": kept,
        }
        lost = kept["simulated"] - kept["refined"]
        drift = Drift("fall of the share of images read as their label", lost, keys.drift.labels)
        return TaskScores(scores, sections(scores, pool, train), drift)


def distances(
    pool: RefinedImages, train: Shards, test: Shards, *, recipe: Recipe, seed: int, cache: Path, job: Job
) -> dict[str, dict[str, Any]]:
    """Frechet distances to the real training images: of simulated, refined and real test images (the floor).

    Every rank must call this.
    """
    detector = make_detector(train, recipe, seed=seed, cache=cache, job=job)

    def real(shards: Shards, split: str) -> Features:
        return features_of_shards(detector, shards, split=split, count=0, seed=seed, cache=cache, job=job)

    reference = real(train, "real train")
    compared = {
        "simulated": features_of_pictures(detector, pool.before, "simulated", job),
        "refined": features_of_pictures(detector, pool.after, "refined", job),
        "real test": real(test, "real test"),
    }
    return {name: frechet_score(features, reference, seed=seed).to_dict() for name, features in compared.items()}


def accuracies(
    pool: RefinedImages, train: Shards, test: Shards, *, recipe: Recipe, seed: int, cache: Path, job: Job
) -> dict[str, dict[str, Any]]:
    """Classifiers of one recipe trained on each domain, tested on the real test images, per class.

    Every rank must call this.
    """
    training = {
        "simulated": from_arrays(pool.before, pool.labels),
        "refined": from_arrays(pool.after, pool.labels),
        "real": from_shards(train, np.asarray(train.hidden_labels())),
    }
    tested = from_shards(test, np.asarray(test.hidden_labels()))
    return {
        name: train_and_test(
            data, tested, len(test.classes), recipe, seed=seed, cache=cache, job=job, what=f"{name} classifier"
        ).to_dict()
        for name, data in training.items()
    }


def labels_kept(
    pool: RefinedImages, train: Shards, *, recipe: Recipe, seed: int, cache: Path, job: Job
) -> dict[str, float]:
    """The accuracy of a classifier of real images on synthetic images, before and after refining.

    Every rank must call this.
    """
    real, count = from_shards(train, np.asarray(train.hidden_labels())), len(train.classes)
    compared = {"simulated": pool.before, "refined": pool.after}
    return {
        name: train_and_test(
            real, from_arrays(images, pool.labels), count, recipe, seed=seed, cache=cache, job=job
        ).accuracy
        for name, images in compared.items()
    }
