"""Which parts an evaluation has, and what each depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.cli.config import to_dict
from s3gan.evaluation.config import EvaluateConfig
from s3gan.evaluation.feature_space import Evaluation, FeatureSpace
from s3gan.evaluation.parts import Classes, accuracies, distances, memorisation, overlap, within_classes
from s3gan.evaluation.score_file import Inputs, Result
from s3gan.evaluation.subject import Draw, Subject
from s3gan.metrics.detector import Detector, DetectorName, make_detector
from s3gan.metrics.labelled import Labelled, digest
from s3gan.metrics.pretrained import open_detector


@dataclass(frozen=True)
class Part:
    """A part of the evaluation: what computes it from a draw and its images, and all that it depends on."""

    compute: Callable[[Draw, Labelled], Result]
    inputs: list[Inputs]  # of each of the draws that it is computed of, the first so many


def plan(config: EvaluateConfig, evaluation: Evaluation, subject: Subject) -> dict[str, Part]:
    """The parts that are asked for, by their names in scores.json.

    Raises:
        UserError: the detector's weights cannot be loaded, or are not what they should be.
    """
    judge, opener = choose_detector(config, evaluation)
    space = FeatureSpace(
        evaluation, opener, count=config.count, reference=config.reference.name, searched=config.memorisation
    )
    splits = evaluation.train, evaluation.test
    real = [[shards.fingerprint, digest(np.asarray(shards.hidden_labels()))] for shards in splits]
    common = {"real": real, "seed": config.seed}
    measured = common | judge | {"count": config.count, "reference": config.reference.name}

    def classes(draw: Draw) -> Classes:
        table = draw.label_table  # one for all draws, or in a run that re-clusters one for each checkpoint
        make = partial(Classes, evaluation, subject.class_names, table, config.budget)
        return space.once(("classes", table.get("path")), make)

    def tables(draw: Draw) -> Inputs:
        paths = [Path(path) for path in (config.budget, draw.label_table.get("path", "")) if path]
        return {"tables": [digest(np.fromfile(path, np.uint8)) if path.is_file() else None for path in paths]}

    def on_features(compute: Callable[[FeatureSpace, Labelled], Result], **more: Any) -> Part:
        inputs = [{"images": draw.identity} | measured | more for draw in subject.draws]
        return Part(lambda _, images: compute(space, images), inputs)

    parts = {"distances": on_features(distances)}
    if config.prdc:
        parts["prdc"] = on_features(overlap)
    if config.intra:
        sized = measured | {"intra_count": config.intra_count}
        parts["intra"] = Part(
            lambda draw, images: within_classes(space, images, classes(draw), config.intra_count),
            [{"images": draw.identity} | sized | tables(draw) for draw in subject.draws],
        )
    if config.memorisation:
        parts["memorisation"] = on_features(memorisation, searched=config.memorisation)
    parts = {name + config.suffix: part for name, part in parts.items()}
    if config.cas:
        first = subject.draws[0]
        inputs = {"images": first.identity} | common | {"classifier": to_dict(config.classifier)} | tables(first)
        parts["cas"] = Part(lambda draw, images: accuracies(evaluation, images, classes(draw)), [inputs])
    return parts


def choose_detector(config: EvaluateConfig, evaluation: Evaluation) -> tuple[dict[str, Any], Callable[[], Detector]]:
    """What identifies the detector before it is made, and what makes it. One that is given is loaded right away."""
    train, job = evaluation.train, evaluation.job
    if config.detector is DetectorName.classifier:
        judge = {"detector": config.detector.name, "classifier": to_dict(config.classifier)}
        recipe, seed, cache = config.classifier, config.seed, evaluation.cache
        return judge, lambda: make_detector(train, recipe, seed=seed, cache=cache, job=job)
    weights, sizes = config.detector_weights, {"channels": train.channels, "size": train.size}
    detector = open_detector(config.detector, weights, **sizes, device=job.device)
    return asdict(detector.protocol), lambda: detector
