"""Task: any two directories of shards. Labels are not used; scores are how much refining changes the images."""

from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from cluster_jobs.reporting.section import Section
from simgan.tasks.digits import distances
from simgan.tasks.protocol import Domains, RefinedImages, ScoreKeys, TaskScores, check_same_shape, pair_section


class Folder:
    """Images of one shape. Frechet distances use a classifier of real images, if these have labels."""

    def check(self, synthetic: Shards, real: Shards) -> None:
        """Raises UserError if the two data sets are not compatible."""
        check_same_shape(synthetic, real)

    def check_scoring(self, synthetic: Shards, real: Shards) -> None:
        """Raises UserError if the two domains' images differ in shape; labels are optional."""
        self.check(synthetic, real)

    def score(self, domains: Domains, keys: ScoreKeys, cache: Path, job: Job) -> TaskScores:
        """How much images change and, if real images have labels of two classes, Frechet distances. No label drift."""
        scores: dict[str, Any] = {"change": {"train": change(domains.pool), "unseen": change(domains.unseen)}}
        labels = np.asarray(domains.train.hidden_labels())
        if len(np.unique(labels[labels >= 0])) > 1:
            scores["distances"] = distances(
                domains.pool,
                domains.train,
                domains.test,
                recipe=keys.classifier,
                seed=keys.seed,
                cache=cache,
                job=job,
            )
        return TaskScores(scores, [section(scores), pair_section(domains)], None)


def change(images: RefinedImages) -> dict[str, float]:
    """How much refining changes pixels and the mean brightness of images, in grey levels of 255."""
    difference = images.after.astype(np.float64) - images.before
    return {
        "mean_absolute": float(np.abs(difference).mean()),
        "brightness": float(np.abs(difference.mean((1, 2, 3))).mean()),
        "pixels_changed": float((np.abs(difference) > 8).mean()),
        "count": len(difference),
    }


def section(scores: dict[str, Any]) -> Section:
    """A table row for each split; Frechet distances, if any, in the text."""
    distances = scores.get("distances", {})
    text = "; ".join(f"{name}: {score['name']} {score['value']:.2f}" for name, score in distances.items())
    return Section(
        "scores",
        title="What refining changes",
        text=f"Frechet distances to real training images: {text}."
        if text
        else "Real images have no labels: no Frechet distance on a classifier.",
        columns=["split", "images", "mean |change|", "change of brightness", "pixels changed by more than 8"],
        rows=[
            [
                split,
                row["count"],
                f"{row['mean_absolute']:.2f}",
                f"{row['brightness']:.2f}",
                f"{row['pixels_changed']:.1%}",
            ]
            for split, row in scores["change"].items()
        ],
    )
