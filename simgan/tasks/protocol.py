"""The interface of a task: whether two data sets are compatible (size, labels), and how refined images are scored.

Most tasks score them by training a network on them and testing it on real images.

Labels of real images are read inside ``RefinerTask.score`` alone, which ``simgan.evaluate`` calls; training never does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cluster_jobs.cli.config import CommandKeys, group, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import encode_png, shape_text
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from cluster_jobs.reporting.grids import grid
from cluster_jobs.reporting.section import Picture, Section
from s3gan.metrics.cas import ClassifierRecipe
from simgan.estimators.recipe import EstimatorRecipe

PAIRS, COLUMNS = 24, 8  # images of each kind in pairs.png, and columns
SMALL = 64  # images narrower than this are shown at twice their size


@dataclass
class Recipe(ClassifierRecipe):
    """The one recipe of all classifiers, whatever they are trained on; long enough for ten classes of digits."""

    width: int = option(16, "channels of its first stage")
    steps: int = option(400, "optimizer steps")
    batch: int = option(64, "labelled images per step")


@dataclass
class DriftLimits:
    """The limits above which a run is flagged because labels do not survive refining."""

    pixels: float = option(1.5, "gaze, hand: mean displacement, in pixels of the stored image")
    lost: float = option(0.1, "gaze: share of irises that are lost, their edge faded to less than a third")
    labels: float = option(0.1, "digits: fall of the share of images that are read as their label")

    def check(self) -> None:
        """Raises UserError for a number outside its range."""
        for name in ("pixels", "lost", "labels"):
            if not getattr(self, name) > 0:
                raise UserError(f"drift.{name}={getattr(self, name)}: expected a positive number")


@dataclass
class ScoreKeys(CommandKeys):
    """The keys of scoring. Each task reads the groups that it needs."""

    classifier: Recipe = group(Recipe, "digits, folder: how detector and classifiers are trained, whatever on")
    estimator: EstimatorRecipe = group(EstimatorRecipe, "gaze, hand: how estimators are trained, whatever on")
    drift: DriftLimits = group(DriftLimits, "when labels count as lost")
    times: int = option(
        4, "gaze, hand: rows ×k learn from all images up to limit=, those above from 1/k; 1: no rows ×k"
    )

    def check(self) -> None:
        """Raises UserError for a number outside its range."""
        super().check()
        self.classifier.check()
        self.estimator.check()
        self.drift.check()
        if self.times < 1:
            raise UserError(f"times={self.times}: expected a positive integer")


@dataclass(frozen=True)
class RefinedImages:
    """N images before and after refining, (N, C, H, W) uint8 each, with labels (N,), -1 for none, and N annotations."""

    before: np.ndarray
    after: np.ndarray
    labels: np.ndarray
    annotations: list[dict[str, Any] | None]


@dataclass(frozen=True)
class Domains:
    """The images that a task scores."""

    pool: RefinedImages  # the simulator's train split, which the refiner was trained on
    unseen: RefinedImages  # its test split, which the refiner never saw
    train: Shards  # real images, as the refiner saw them without their labels
    test: Shards  # real images that scores are measured on


@dataclass(frozen=True)
class Drift:
    """Whether labels survived refining: the value of a ``measure``, flagged above ``limit``."""

    measure: str
    value: float
    limit: float

    @property
    def flagged(self) -> bool:
        """Whether the value is above the limit; NaN, which could not be measured, is flagged too."""
        return not self.value <= self.limit

    def or_worse(self, other: "Drift") -> "Drift":
        """Of two measures the one with the larger ratio of value to limit."""
        return other if other.value / other.limit > self.value / self.limit else self

    def to_dict(self) -> dict[str, Any]:
        """The entries of scores.json."""
        return {"drift": self.flagged, "drift_measure": self.measure, "drift_value": self.value} | {
            "drift_limit": self.limit
        }

    def warning(self) -> str:
        """One line; "" where labels survived."""
        if not self.flagged:
            return ""
        return f"labels drift: {self.measure} {self.value:.3g}, the limit is {self.limit:g}"


@dataclass(frozen=True)
class TaskScores:
    """``scores`` (JSON) and sections of the report; ``drift`` is None for a task without labels."""

    scores: dict[str, Any]
    sections: list[Section]
    drift: Drift | None


class RefinerTask(Protocol):
    """One use of refined images. Every rank must call ``score``, which returns the same on each."""

    def check(self, synthetic: Shards, real: Shards) -> None:
        """Raises UserError if the two data sets are not compatible. Reads no label of a real image."""

    def check_scoring(self, synthetic: Shards, real: Shards) -> None:
        """Raises UserError if the two domains' labels cannot be compared."""

    def score(self, domains: Domains, keys: ScoreKeys, cache: Path, job: Job) -> TaskScores:
        """Scores the refined pool. Networks that are trained for it are kept in ``cache``."""


def check_same_shape(synthetic: Shards, real: Shards) -> None:
    """Raises UserError if images of the two domains differ in size or channels."""
    if synthetic.shape != real.shape:
        raise UserError(
            f"images of {shape_text(synthetic.shape)} in {synthetic.directory} but of {shape_text(real.shape)} in "
            f"{real.directory} (channels × height × width): pack both alike"
        )


def error_rows(scores: dict[str, dict[str, float]], mean: str, median: str, within: str, unit: str) -> list[list[Any]]:
    """The rows of a table of errors, one for each kind of training images; the names are keys of ``scores[kind]``."""
    return [
        [kind, row["train_count"], f"{row[mean]:.2f}{unit}", f"{row[median]:.2f}{unit}", f"{row[within]:.1%}"]
        for kind, row in scores.items()
    ]


def sheet(images: np.ndarray, columns: int) -> bytes:
    """Images uint8 (N, C, H, W) row by row as a PNG, small ones at twice their size."""
    picture = grid(images, columns)
    if images.shape[-1] < SMALL:
        picture = picture.repeat(2, 0).repeat(2, 1)
    return encode_png(picture.transpose(2, 0, 1))


def pair_section(domains: Domains) -> Section:
    """Rows of simulated images, the same refined, and real ones."""
    pool, count = domains.pool, min(PAIRS, len(domains.pool.before), len(domains.train)) // COLUMNS * COLUMNS
    rows = []
    for start in range(0, count, COLUMNS):
        part = slice(start, start + COLUMNS)
        rows += [*pool.before[part], *pool.after[part], *(domains.train.image(i) for i in range(start, part.stop))]
    text = "Rows of three: simulated, the same refined, real."
    title = "Simulated, refined, real"
    if not rows:
        return Section("pairs", title=title, text="Too few images for a picture.")
    return Section(
        "pairs", title=title, text=text, pictures=[Picture("pairs.png", text, sheet(np.stack(rows), COLUMNS))]
    )
