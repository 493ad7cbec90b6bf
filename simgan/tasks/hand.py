"""Task: depth images of hands. Scored by the error of a joint estimator, trained on refined images, on real ones.

Whether labels survive refining is measured without an estimator, by matching the patches around the joints of unseen
images before and after (``patches.py``). Reported as well: how far predicted joints move (estimator trained on
simulated images). This also reacts to changed appearance.
"""

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from cluster_jobs.reporting.section import Picture, Section
from simgan.estimators.fit import Annotated, predict, trained_estimator
from simgan.estimators.hourglass import HandProblem, heat_side
from simgan.tasks.figures import cumulative
from simgan.tasks.patches import patch_shifts, reach
from simgan.tasks.protocol import (
    Domains,
    Drift,
    RefinedImages,
    ScoreKeys,
    TaskScores,
    check_same_shape,
    error_rows,
    pair_section,
)
from simgan.tasks.training_sets import Annotations, points_of, real_data, training_sets

CLOSE, PAPER_SIDE = 5.0, 224  # the paper's table 4 counts joints within 5 px, of its crops as we read it; in proportion
MATCHED = 500  # unseen images whose joints are matched, at most
BLOCK = 50  # images per forward pass; an hourglass needs much memory


class Hand:
    """Annotations hold ``joints`` (J of x, y in pixels and z in mm) in both domains; x and y are estimated."""

    def check(self, synthetic: Shards, real: Shards) -> None:
        """Raises UserError if the two data sets are not compatible."""
        check_same_shape(synthetic, real)
        if synthetic.height != synthetic.width:
            raise UserError(f"{synthetic.directory}: {synthetic.height} × {synthetic.width}, expected square pictures")
        heat_side(synthetic.width)

    def check_scoring(self, synthetic: Shards, real: Shards) -> None:
        """Raises UserError if a domain's samples have no joints, or another number than the other domain's."""
        self.check(synthetic, real)
        counts = {
            shards.directory: joints_of([shards.annotation(0)], shards.directory).shape[1]
            for shards in (synthetic, real)
        }
        if len(set(counts.values())) > 1:
            listed = " but ".join(f"{count} joints in {directory}" for directory, count in counts.items())
            raise UserError(f"{listed}: an estimator of one cannot be tested on the other")

    def score(self, domains: Domains, keys: ScoreKeys, cache: Path, job: Job) -> TaskScores:
        """Errors on real test images of estimators trained on each domain, and how far joints move in unseen images.

        Labels drift if joints move by more than ``drift.pixels`` on average.
        """
        test = real_data(domains.test, joints_of)
        sets = training_sets(domains, keys.times, joints_of)
        networks = {name: learn(data, name, keys, cache, job) for name, data in sets.items()}
        side = test.images.shape[-1]
        errors = {
            name: distances(predict(network, test.images, job.device, BLOCK), test.targets, side)
            for name, network in networks.items()
        }
        rows = {name: {"train_count": len(sets[name]), **summary(values, side)} for name, values in errors.items()}
        simulated = networks.get(f"simulated ×{keys.times}", networks["simulated"])
        moved = {
            **patch_displacement(domains.unseen),
            "found_by_estimator": estimator_displacement(simulated, domains.unseen, job),
        }
        scores = {
            "estimator": {"width": keys.estimator.width, "steps": keys.estimator.steps, "batch": keys.estimator.batch},
            "joints": rows,
            "displacement": moved,
        }
        drift = Drift("mean displacement of joints in pixels", moved["mean"], keys.drift.pixels)
        return TaskScores(scores, [*sections(scores, errors, side), pair_section(domains)], drift)


def learn(data: Annotated, name: str, keys: ScoreKeys, cache: Path, job: Job) -> nn.Module:
    """The estimator of one training set."""
    problem = HandProblem(data.images.shape[-1], data.targets.shape[1])
    what = f"{name} estimator"
    return trained_estimator(problem, data, keys.estimator, seed=keys.seed, cache=cache, job=job, what=what)


def joints_of(annotations: Annotations, where: str) -> np.ndarray:
    """Joints (N, J, 2) float32, x and y in pixels. Raises UserError for a sample with none or another number."""
    return points_of(annotations, "joints", 3, where)[..., :2].astype(np.float32)


def distances(predicted: np.ndarray, joints: np.ndarray, side: int) -> np.ndarray:
    """Distances in pixels of all joints that lie in their image, (joints,)."""
    visible = ((joints >= -0.5) & (joints < side - 0.5)).all(-1)
    return np.linalg.norm(predicted.astype(np.float64) - joints, axis=-1)[visible]


def close(side: int) -> float:
    """The paper's 5 pixels of 224, scaled to an image of ``side``."""
    return CLOSE * side / PAPER_SIDE


def summary(errors: np.ndarray, side: int) -> dict[str, float]:
    """Summary statistics of errors in pixels."""
    return {
        "mean_pixels": float(errors.mean()),
        "median_pixels": float(np.median(errors)),
        "within_5_of_224": float((errors <= close(side)).mean()),
        "joint_count": len(errors),
    }


def patch_displacement(unseen: RefinedImages) -> dict[str, float]:
    """How far patches around joints have moved, in pixels, over the joints at which a movement can be detected.

    NaN if there is no such joint. Joints that were wiped out count as moved by ``lost_pixels``, the search radius.
    """
    joints = joints_of(unseen.annotations[:MATCHED], "the simulator's test split")
    before, after = (images[: len(joints)].astype(np.float32).mean(1) for images in (unseen.before, unseen.after))
    moves, counted, lost = patch_shifts(before, after, joints)
    farthest = float(np.hypot(1, 1) * reach(before.shape[-1]))
    length = np.where(lost, farthest, np.linalg.norm(moves, axis=-1))[counted]
    mean, sd = (float(length.mean()), float(length.std())) if len(length) else (float("nan"), float("nan"))
    counts = {"joints": len(length), "lost": int(lost.sum()), "of": counted.size, "images": len(joints)}
    return {"mean": mean, "sd": sd, **counts, "lost_pixels": farthest}


def estimator_displacement(network: nn.Module, unseen: RefinedImages, job: Job) -> float:
    """Mean distance in pixels between the joints that an estimator predicts before and after refining."""
    before, after = (predict(network, images[:MATCHED], job.device, BLOCK) for images in (unseen.before, unseen.after))
    return float(np.linalg.norm(after - before, axis=-1).mean())


def sections(scores: dict[str, Any], errors: dict[str, np.ndarray], side: int) -> list[Section]:
    """The table and curve of errors, and how far joints moved."""
    recipe, moved, near = scores["estimator"], scores["displacement"], f"{close(side):.3g} px"
    return [
        Section(
            "scores",
            title="Simulated, refined, real: how well joints are found in real images",
            text=f"One hourglass trained on each ({recipe['width']:g} × the paper's width, {recipe['steps']:,} steps "
            f"of {recipe['batch']}), tested on {next(iter(scores['joints'].values()))['joint_count']:,} joints in real "
            f"images of {side} px; {near} are what 5 px are in the paper's 224. Labels of real images are read for "
            "this alone.",
            columns=["trained on", "images", "mean error", "median", f"within {near}"],
            rows=error_rows(scores["joints"], "mean_pixels", "median_pixels", "within_5_of_224", " px"),
            pictures=[Picture("joints.png", "joints within a distance", curve(errors, side))],
        ),
        Section(
            "displacement",
            title="Do the joints stay where they were?",
            text=f"Displacement of the patches around joints in {moved['images']:,} images that R never saw: "
            f"{moved['mean']:.2f} ± {moved['sd']:.2f} px, over the {moved['joints']:,} of {moved['of']:,} joints at "
            f"which a movement can be seen. {moved['lost']:,} of them were not found again and count as "
            f"{moved['lost_pixels']:.1f} px. The joints that the estimator of simulated images finds lie "
            f"{moved['found_by_estimator']:.2f} px apart before and after refining; that includes what the change of "
            "look does to the estimator.",
        ),
    ]


def curve(errors: dict[str, np.ndarray], side: int) -> bytes:
    """A PNG of the cumulative distribution of errors, with a line at the paper's 5 px."""
    return cumulative(errors, close(side), side / 8, "distance below (pixels)", "% of joints in real test images")
