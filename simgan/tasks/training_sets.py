"""The training sets of gaze and joint estimators: simulated, refined and real images with their annotations."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.shards import Shards
from simgan.estimators.fit import Annotated
from simgan.tasks.protocol import Domains

Annotations = list[dict[str, Any] | None]
ReadTargets = Callable[[Annotations, str], np.ndarray]  # (annotations, where they are from) to (N, …) float32


def training_sets(domains: Domains, times: int, read: ReadTargets) -> dict[str, Annotated]:
    """Training sets by name: 1/times of the simulated and refined images, all of them ("×times"), and real images."""
    targets = read(domains.pool.annotations, "the simulator's train split")
    sets = {}
    for name, images in (("simulated", domains.pool.before), ("refined", domains.pool.after)):
        data = Annotated(images, targets)
        sets[name] = data.first(max(1, len(data) // times))
        if times > 1:
            sets[f"{name} ×{times}"] = data
    return {**sets, "real": real_data(domains.train, read)}


def real_data(shards: Shards, read: ReadTargets) -> Annotated:
    """Real images with their labels: for evaluation alone."""
    indices = range(len(shards))
    shards.prefetch(np.arange(len(shards)))
    images = np.stack([shards.image(index) for index in indices])
    return Annotated(images, read([shards.annotation(index) for index in indices], shards.directory))


def points_of(annotations: Annotations, name: str, numbers: int, where: str) -> np.ndarray:
    """The points (N, P, numbers) float64 that annotations hold under a name.

    Raises:
        UserError: a sample has none, or another number of points than the first.
    """
    point_sets: list[np.ndarray] = []
    for index, annotation in enumerate(annotations):
        points = np.array((annotation or {}).get(name, ()), np.float64)
        if points.ndim != 2 or points.shape[1] != numbers:
            raise UserError(f"{where}: sample {index} has no {name!r} of {numbers} numbers each in its annotation")
        if point_sets and points.shape != point_sets[0].shape:
            raise UserError(
                f"{where}: sample {index} has {len(points)} points of {name!r}, the first {len(point_sets[0])}"
            )
        point_sets.append(points)
    return np.stack(point_sets)
