"""Which parts an evaluation has, and what each depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.config import to_dict
from s3gan.evaluate_config import EvaluateConfig
from s3gan.feature_space import Evaluation, FeatureSpace
from s3gan.metrics.detector import Detector, DetectorName, make_detector
from s3gan.metrics.labelled import Labelled, digest
from s3gan.metrics.pretrained import open_detector
from s3gan.score_file import Result
from s3gan.scores import Classes, accuracies, distances, memorisation, overlap, within_classes
from s3gan.subject import Subject


@dataclass(frozen=True)
class Part:
    """A part of the evaluation: what computes it from the images of a draw, and what it depends on besides them."""

    compute: Callable[[Labelled], Result]
    inputs: dict[str, Any]
    draws: int  # the first so many


def plan(config: EvaluateConfig, evaluation: Evaluation, subject: Subject) -> dict[str, Part]:
    """The parts that are asked for, by their names in scores.json.

    Raises:
        UserError: the detector's weights cannot be loaded, or are not what they should be.
    """
    judge, opener = choose_detector(config, evaluation)
    space = FeatureSpace(
        evaluation, opener, count=config.count, reference=config.reference.name, searched=config.memorisation
    )
    classes = Classes(evaluation, subject.class_names, subject.label_table, config.budget)
    tables = [Path(path) for path in (config.budget, subject.label_table.get("path", "")) if path]
    known = [digest(np.fromfile(path, np.uint8)) if path.is_file() else None for path in tables]
    splits = evaluation.train, evaluation.test
    real = [[shards.fingerprint, digest(np.asarray(shards.hidden_labels()))] for shards in splits]
    common = {"real": real, "seed": config.seed}
    measured = common | judge | {"count": config.count, "reference": config.reference.name}

    def on_features(compute: Callable[[FeatureSpace, Labelled], Result], **more: Any) -> Part:
        return Part(lambda images: compute(space, images), measured | more, len(subject.draws))

    parts = {"distances": on_features(distances)}
    if config.prdc:
        parts["prdc"] = on_features(overlap)
    if config.intra:
        parts["intra"] = on_features(
            lambda space, images: within_classes(space, images, classes, config.intra_count),
            intra_count=config.intra_count,
            tables=known,
        )
    if config.memorisation:
        parts["memorisation"] = on_features(memorisation, searched=config.memorisation)
    parts = {name + config.suffix: part for name, part in parts.items()}
    if config.cas:
        inputs = common | {"classifier": to_dict(config.classifier), "tables": known}
        parts["cas"] = Part(lambda images: accuracies(evaluation, images, classes), inputs, 1)
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
