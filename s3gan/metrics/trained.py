"""Classifiers that evaluation trains with labels, cached under a name made from all that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster_jobs.cli.config import to_dict
from cluster_jobs.core.errors import UserError
from cluster_jobs.distributed.job import Job
from cluster_jobs.training.checkpoint import State, load_state, save_state
from s3gan.metrics.labelled import Labelled
from selfsup.encoders.resnet import build_encoder
from selfsup.labelling.classifier import Classifier, ClassifierRecipe, fit


class NotAvailable(UserError):
    """A score that this data cannot have; the message is the reason. Evaluations print it as n/a."""


@dataclass(frozen=True)
class Trained:
    """A classifier in evaluation mode, and the SHA-256 of its weights file: what really identifies its outputs."""

    classifier: Classifier
    hash: str


def trained_classifier(
    train: Labelled, classes: int, recipe: ClassifierRecipe, *, seed: int, cache: Path, job: Job, what: str
) -> Trained:
    """The classifier that `recipe` and `seed` make of `train`: from the cache, or trained now and kept there.

    Every rank calls this, and all get the same weights. `what` names the progress bar.

    Raises:
        NotAvailable: fewer than two classes have images.
    """
    present = len(set(train.labels.tolist()))
    if present < 2:
        raise NotAvailable(f"{what}: {present} classes have images with labels, a classifier needs 2")
    channels = train.images[np.zeros(1, np.int64)].shape[1]
    protocol = {
        "train": train.identity,
        "classes": classes,
        "channels": channels,
        "recipe": to_dict(recipe),
        "seed": seed,
    }

    def train_it() -> State:
        labels = torch.from_numpy(train.labels)
        return fit(train.images, labels, classes, recipe, seed=seed, device=job.device, job=job, what=what).state_dict()

    state, sha256 = cached_state(cache, "classifier", protocol, train_it, job)
    classifier = Classifier(build_encoder(recipe.encoder, channels, recipe.width), classes)
    classifier.load_state_dict(state)
    return Trained(classifier.to(job.device).eval().requires_grad_(False), sha256)


def cached_state(
    cache: Path, kind: str, protocol: dict[str, Any], make: Callable[[], State], job: Job
) -> tuple[State, str]:
    """The state of a protocol and the SHA-256 of its file: read from the cache, or made by all ranks and kept
    there.

    `make` may hold collectives: the main rank looks into the cache and decides for all. Two jobs that fill it at
    once do no harm: files appear whole, and the last one stays.

    Raises:
        UserError: the cached file is damaged or holds another protocol.
    """
    name = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:16]
    path = cache / f"{kind}-{name}.safetensors"
    cached = torch.tensor(int(job.is_main and path.with_suffix(".json").is_file()), device=job.device)
    if not int(job.reduce(cached)):
        state = make()
        if job.is_main:
            save_state(path, state, protocol=protocol)
        job.barrier()
    state, manifest = load_state(path)
    if manifest.get("protocol") != protocol:
        raise UserError(f"{path}: is not what its name says (it holds {manifest.get('protocol')}); delete it")
    return state, manifest["sha256"]
