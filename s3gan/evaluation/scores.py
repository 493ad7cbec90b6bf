"""What an evaluation computes: from the images of one draw to scores by name, a function for each task.

They may read hidden labels, so training and the choice of a checkpoint or a pool must not use their results. They
contain collectives: every rank must call them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from s3gan.evaluation.feature_space import Evaluation, FeatureSpace
from s3gan.evaluation.score_file import Result
from s3gan.metrics import cas
from s3gan.metrics.classes import budget_labels, pool_classes, renumber
from s3gan.metrics.detector import Features
from s3gan.metrics.intra import LabelledFeatures, intra_scores
from s3gan.metrics.knn import centred
from s3gan.metrics.labelled import Labelled, choose, from_shards, joined, relabelled
from s3gan.metrics.memorisation import nearest_training_score
from s3gan.metrics.prdc import squared_radii
from s3gan.metrics.score import Score, equal_counts, frechet_score, inception_score_of, kernel_score, prdc_scores
from s3gan.metrics.trained import NotAvailable


class Classes:
    """Which class of the data each class of the images means, and which labels were revealed.

    Args:
        names: what the images' classes are called.
        table: metadata of the label table behind their generator; {} where nobody knows.
        budget: label table of the revealed labels; "" for those in that table.
    """

    def __init__(self, evaluation: Evaluation, names: list[str], table: dict[str, Any], budget: str) -> None:
        self.evaluation, self.names, self.table, self.budget = evaluation, names, table, budget

    @cached_property
    def revealed(self) -> np.ndarray:
        """`budget_labels`; NotAvailable where there are none."""
        return budget_labels(self.budget, self.table, self.evaluation.train, self.evaluation.names)

    @cached_property
    def numbers(self) -> np.ndarray:
        """`pool_classes`; NotAvailable where classes mean nothing."""
        evaluation = self.evaluation
        return pool_classes(self.names, self.table, evaluation.train, evaluation.names, lambda: self.revealed)


def distances(space: FeatureSpace, images: Labelled) -> Result:
    """Frechet and kernel distance to real images, and the Inception Score where the detector is the network of FID.

    Each distance comes with its floor: the distance of as many real images of the other split.
    """
    samples = space.samples(images)

    def measured(features: Features) -> list[Score]:
        return [score(features, space.reference, seed=space.seed) for score in (frechet_score, kernel_score)]

    results = _by_name(measured(samples))
    if space.detector.last_layer is not None:
        results |= _by_name([inception_score_of(space.detector, samples, seed=space.seed)])
    floor = space.once(("distances", len(samples)), lambda: measured(space.floor(len(samples))))
    return results | _by_name(floor, "floor_")


def overlap(space: FeatureSpace, images: Labelled) -> Result:
    """Precision, recall, density and coverage of the images and as many real ones; `floor_` are those of real images of
    the other split, which here is the best to be had.
    """
    samples, seed, device = space.samples(images), space.seed, space.device

    def measured(features: Features) -> list[Score]:
        ours, real = equal_counts(features, space.reference, seed=seed)
        radii = space.once(("radii", len(real)), lambda: squared_radii(*centred(real.values, device=device)))
        return prdc_scores(ours, real, seed=seed, device=device, radii=radii)

    floor = space.once(("overlap", len(samples)), lambda: measured(space.floor(len(samples))))
    return _by_name(measured(samples)) | _by_name(floor, "floor_")


def within_classes(space: FeatureSpace, images: Labelled, classes: Classes, count: int) -> Result:
    """Frechet distance of generated to real images class by class, and its mean; see `intra_scores`."""
    labels = renumber(images.labels, classes.numbers)[space.scored(images)]
    samples = LabelledFeatures(space.samples(images), labels, "generated")

    def real(split: str, features: Features) -> LabelledFeatures:
        rows = choose(len(space.shards(split)), len(features), space.seed)
        return LabelledFeatures(features, np.asarray(space.shards(split).hidden_labels())[rows], f"real {split}")

    reference = real(space.reference_split, space.reference)
    floor = real(space.floor_split, space.floor(len(labels)))
    scores = intra_scores(samples, reference, floor, space.evaluation.names, count=count, seed=space.seed)
    return {name: score.to_dict() for name, score in scores.items()}


def memorisation(space: FeatureSpace, images: Labelled) -> Result:
    """How near the images are to training images, and which those are; `shown` holds indices of images."""
    test = space.reference if space.reference_split == "test" else space.floor(len(space.scored(images)))
    train = space.real("train", space.searched)
    score = nearest_training_score(space.samples(images), test, train, seed=space.seed, device=space.device).to_dict()
    chosen, rows = space.scored(images), space.rows("train", space.searched)
    shown = [
        row | {"sample": int(chosen[row["sample"]]), "train": rows[row["train"]].tolist()} for row in score["shown"]
    ]
    return {score["name"]: score | {"shown": shown}}


def accuracies(evaluation: Evaluation, images: Labelled, classes: Classes) -> Result:
    """Accuracy on real test images of classifiers trained on the pool, the label budget, both, and all real labels."""
    train, names = evaluation.train, evaluation.names
    test = from_shards(evaluation.test, np.asarray(evaluation.test.hidden_labels()))

    def budget_set() -> Labelled:
        return from_shards(train, classes.revealed)

    def pool_set() -> Labelled:
        return relabelled(images, renumber(images.labels, classes.numbers))

    sets: dict[str, Callable[[], Labelled]] = {
        "pool": pool_set,
        "budget": budget_set,
        "budget_and_pool": lambda: joined(budget_set(), pool_set()),
        "all": lambda: from_shards(train, np.asarray(train.hidden_labels())),
    }
    results: Result = {}
    for name, make in sets.items():
        try:
            results[name] = cas.train_and_test(
                make(),
                test,
                len(names),
                evaluation.recipe,
                seed=evaluation.seed,
                cache=evaluation.cache,
                job=evaluation.job,
                what=f"classifier of {name.replace('_', ' ')}",
            ).to_dict()
        except NotAvailable as reason:
            results[name] = {"n/a": str(reason)}
    if "n/a" not in results["pool"]:
        dropped = {"dropped_classes": int((classes.numbers < 0).sum())}
        results["pool"] |= dropped | {"dropped_images": len(images) - results["pool"]["train_count"]}
    return results


def _by_name(scores: list[Score], prefix: str = "") -> Result:
    return {prefix + score.name: score.to_dict() for score in scores}
