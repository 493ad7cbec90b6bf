"""Any two directories of shards: labels and annotations go along unread; scores say how much refining changes."""

from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from cluster_jobs.reporting.section import Section
from simgan.tasks.digits import distances
from simgan.tasks.protocol import Domains, RefinedImages, ScoreKeys, TaskScores, check_same_shape, pair_section


class Folder:
    """Pictures of one shape. Frechet distances are read by a classifier of real images, where these have labels."""

    def check(self, synthetic: Shards, real: Shards) -> None:
        """Raises UserError where the two domains cannot be one task."""
        check_same_shape(synthetic, real)

    def check_scoring(self, synthetic: Shards, real: Shards) -> None:
        """Raises UserError where the two domains' pictures differ in shape; labels may be anything or nothing."""
        self.check(synthetic, real)

    def score(self, domains: Domains, keys: ScoreKeys, cache: Path, job: Job) -> TaskScores:
        """How much images change and, where real images have labels of two classes, Frechet distances. Nothing is
        known of labels here, so nothing is said of their drift."""
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
    """What refining changes, in grey levels of 255: per pixel, and of an image's mean brightness."""
    difference = images.after.astype(np.float64) - images.before
    return {
        "mean_absolute": float(np.abs(difference).mean()),
        "brightness": float(np.abs(difference.mean((1, 2, 3))).mean()),
        "pixels_changed": float((np.abs(difference) > 8).mean()),
        "count": len(difference),
    }


def section(scores: dict[str, Any]) -> Section:
    """A row for each split, and what distances there are in the text."""
    found = scores.get("distances", {})
    text = "; ".join(f"{name}: {score['name']} {score['value']:.2f}" for name, score in found.items())
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
