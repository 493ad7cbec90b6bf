"""The tasks of an evaluation: which are asked for, what computes each, and all that its results depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.cli.config import to_dict
from s3gan.evaluation.config import EvaluateConfig
from s3gan.evaluation.evaluated_images import Draw, EvaluatedImages
from s3gan.evaluation.feature_space import Evaluation, FeatureSpace
from s3gan.evaluation.score_file import Inputs, Result
from s3gan.evaluation.scores import Classes, accuracies, distances, memorisation, overlap, within_classes
from s3gan.metrics.detector import Detector, DetectorName, make_detector
from s3gan.metrics.labelled import Labelled, digest
from s3gan.metrics.pretrained import open_detector


@dataclass(frozen=True)
class Task:
    """A group of scores that are computed together: by what from a draw and its images, and what they depend on."""

    compute: Callable[[Draw, Labelled], Result]
    inputs: list[Inputs]  # of each of the draws that it is computed of, the first so many


def plan_tasks(config: EvaluateConfig, evaluation: Evaluation, evaluated: EvaluatedImages) -> dict[str, Task]:
    """The tasks that are asked for, by their names in scores.json.

    Raises:
        UserError: the detector's weights cannot be loaded, or are not what they should be.
    """
    identity, load_detector = choose_detector(config, evaluation)
    space = FeatureSpace(
        evaluation, load_detector, count=config.count, reference=config.reference.name, searched=config.memorisation
    )
    splits = evaluation.train, evaluation.test
    real = [[shards.fingerprint, digest(np.asarray(shards.hidden_labels()))] for shards in splits]
    common = {"real": real, "seed": config.seed}
    measured = common | identity | {"count": config.count, "reference": config.reference.name}

    def classes(draw: Draw) -> Classes:
        table = draw.label_table  # one for all draws, or in a run that re-clusters one for each checkpoint
        make = partial(Classes, evaluation, evaluated.class_names, table, config.budget)
        return space.once(("classes", table.get("path")), make)

    def tables(draw: Draw) -> Inputs:
        paths = [Path(path) for path in (config.budget, draw.label_table.get("path", "")) if path]
        return {"tables": [digest(np.fromfile(path, np.uint8)) if path.is_file() else None for path in paths]}

    def on_features(compute: Callable[[FeatureSpace, Labelled], Result], **more: Any) -> Task:
        inputs = [{"images": draw.identity} | measured | more for draw in evaluated.draws]
        return Task(lambda _, images: compute(space, images), inputs)

    tasks = {"distances": on_features(distances)}
    if config.prdc:
        tasks["prdc"] = on_features(overlap)
    if config.intra:
        sized = measured | {"intra_count": config.intra_count}
        tasks["intra"] = Task(
            lambda draw, images: within_classes(space, images, classes(draw), config.intra_count),
            [{"images": draw.identity} | sized | tables(draw) for draw in evaluated.draws],
        )
    if config.memorisation:
        tasks["memorisation"] = on_features(memorisation, searched=config.memorisation)
    tasks = {name + config.suffix: task for name, task in tasks.items()}
    if config.cas:
        first = evaluated.draws[0]
        inputs = {"images": first.identity} | common | {"classifier": to_dict(config.classifier)} | tables(first)
        tasks["cas"] = Task(lambda draw, images: accuracies(evaluation, images, classes(draw)), [inputs])
    return tasks


def choose_detector(config: EvaluateConfig, evaluation: Evaluation) -> tuple[dict[str, Any], Callable[[], Detector]]:
    """What identifies the detector before it is made, and what makes it. One that is given is loaded right away."""
    train, job = evaluation.train, evaluation.job
    if config.detector is DetectorName.classifier:
        recorded = {"detector": config.detector.name, "classifier": to_dict(config.classifier)}
        recipe, seed, cache = config.classifier, config.seed, evaluation.cache
        return recorded, lambda: make_detector(train, recipe, seed=seed, cache=cache, job=job)
    weights, sizes = config.detector_weights, {"channels": train.channels, "size": train.size}
    detector = open_detector(config.detector, weights, **sizes, device=job.device)
    return asdict(detector.protocol), lambda: detector
