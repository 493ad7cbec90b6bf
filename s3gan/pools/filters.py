"""The filters that a pool's configuration asks for: their keys, the criteria they mean, and what they kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster_jobs.cli.config import CommandKeys, option
from cluster_jobs.core.errors import UserError
from s3gan.inference.loading import load_discriminator
from s3gan.pools.rejection import Calibration, Criterion, classifier_agreement, discriminator_score
from selfsup.encoders.loading import weights_digest
from selfsup.labelling.classifier import Classifier, load_classifier

PATIENCE = 50  # a sample may take so many times the attempts that a class may take on average


@dataclass
class FilterKeys(CommandKeys):
    """The keys of a pool's filters; without them every image is kept."""

    keep_score: float = option(
        1.0, "share of each class to keep: the images that the run's discriminator scores highest; 1 keeps all"
    )
    agree: str = option(
        "",
        "keep an image only if this classifier sees its class: the label table of selfsup.label method=classifier, or "
        "the .classifier.safetensors beside it",
        path=True,
    )
    agree_min: float = option(0.0, "agree: and only if the classifier gives its class at least this probability")
    tries: int = option(20, "images that a class may take, on average, for each one kept; more is an error")
    calibration: int = option(
        256, "images of each class drawn beforehand to set the thresholds and measure what is kept"
    )

    def check(self) -> None:
        super().check()
        if not 0 < self.keep_score <= 1:
            raise UserError(f"keep_score={self.keep_score}: expected a share above 0 and at most 1")
        if not 0 <= self.agree_min <= 1:
            raise UserError(f"agree_min={self.agree_min}: expected a probability from 0 to 1")
        if self.agree_min and not self.agree:
            raise UserError(f"agree_min={self.agree_min}: needs agree=, the classifier whose probability is meant")
        if self.tries < 1:
            raise UserError(f"tries={self.tries}: expected a positive integer")
        if self.calibration < 20:
            raise UserError(f"calibration={self.calibration}: expected at least 20 images of each class")


@dataclass(frozen=True)
class Filters:
    """`request` is what pool.json says of them, None without filters; `limit` the attempts at one sample."""

    criteria: list[Criterion]
    request: dict[str, Any] | None
    limit: int


def open_filters(
    config: FilterKeys, run: str, checkpoint: str, network: dict[str, Any], device: torch.device
) -> Filters:
    """Loads what the filters need.

    Args:
        checkpoint: path of the generator's checkpoint, in which its discriminator is.
        network: the run's network.json.

    Raises:
        UserError: there is no discriminator or classifier, or the classifier is one of other classes.
    """
    criteria = []
    request: dict[str, Any] = {}
    if config.keep_score < 1:
        discriminator, _ = load_discriminator(run, checkpoint, device)
        criteria.append(discriminator_score(discriminator, config.keep_score))
        request["keep_score"] = config.keep_score
    if config.agree:
        classifier = load_classifier(Path(config.agree), device)
        _check_classes(config.agree, classifier, network)
        criteria.append(classifier_agreement(classifier, config.agree_min))
        known = {"sha256": weights_digest(classifier), **classifier.facts}
        request |= {"agree": {"classifier": known}, "agree_min": config.agree_min}
    if request:
        request["calibration"] = config.calibration
    return Filters(criteria, request or None, PATIENCE * config.tries)


def _check_classes(path: str, classifier: Classifier, network: dict[str, Any]) -> None:
    names, ours = classifier.facts.get("class_names"), network["class_names"]
    if names != ours:
        theirs = "no names" if names is None else ", ".join(map(str, names[:20]))
        raise UserError(f"agree={path!r}: a classifier of the classes {theirs}; the run's are {', '.join(ours[:20])}")
    if classifier.encoder.channels != network["channels"]:
        raise UserError(
            f"agree={path!r}: a classifier of images with {classifier.encoder.channels} channels, the run's images "
            f"have {network['channels']}"
        )


def refuse_what_keeps_too_little(
    calibration: Calibration, wanted: np.ndarray, config: FilterKeys, names: list[str]
) -> None:
    """Raises UserError, before anything is written, where a class would take more than `tries` images for each one."""
    poor = [number for number in np.flatnonzero(wanted).tolist() if not calibration.kept[number] * config.tries >= 1]
    if poor:
        worst = ", ".join(f"{names[number]!r} {calibration.kept[number]:.1%}" for number in poor[:5])
        raise UserError(
            f"the filters keep too little of {len(poor)} class(es): {worst}, of {config.calibration} images each; "
            f"tries={config.tries} expects at least {1 / config.tries:.1%} (lower keep_score or agree_min, raise tries)"
        )


def calibrated(calibration: Calibration, criteria: list[Criterion], names: list[str]) -> dict[str, Any]:
    """A calibration for pool.json, by class; classes that the pool does not want are left out."""
    wanted = np.flatnonzero(np.isfinite(calibration.thresholds.numpy()).all(0)).tolist()
    rows = zip(criteria, calibration.thresholds.tolist(), strict=True)
    return {
        "thresholds": {criterion.name: {names[n]: row[n] for n in wanted} for criterion, row in rows},
        "kept_rate": {names[n]: round(float(calibration.kept[n]), 6) for n in wanted},
    }


def read_thresholds(pool: dict[str, Any], criteria: list[Criterion], names: list[str], origin: Path) -> Tensor:
    """The thresholds (criteria, classes) float32 that pool.json holds, infinite for a class that it does not name."""
    try:
        thresholds = [pool["calibrated"]["thresholds"][criterion.name] for criterion in criteria]
        rows = [[float(row.get(name, np.inf)) for name in names] for row in thresholds]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{origin}: holds no thresholds of its filters ({error!r}); choose another out") from error
    return torch.tensor(rows, dtype=torch.float32).reshape(len(criteria), len(names))
