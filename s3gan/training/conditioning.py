"""Conditions from a label table: classes, hard or soft labels of real images, how often fakes have each class."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_atomically, write_json
from cluster_jobs.data.label_table import LabelTable, merge, open_merged, read_table
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.frozen_config import check_facts
from cluster_jobs.training.run import Run
from s3gan.inference.network_file import heads_to_json
from s3gan.methods import METHODS, Method
from s3gan.networks import HeadPlan
from s3gan.networks.heads import one_hot
from s3gan.training.config import FakeLabels, TrainConfig


@dataclass
class Conditions:
    """`counts` are the real images of each class (expected ones where labels are random); `weights` the distribution of
    the fakes' classes, None for uniform. A re-clustering replaces both."""

    method: Method
    class_names: list[str]
    counts: Sequence[float]
    weights: list[float] | None
    table: LabelTable | None
    label_softness: float = 0.0  # how much of a label is replaced by the table's probabilities
    described: dict[str, Any] = field(default_factory=dict)  # the table's metadata and path

    def device_weights(self, device: torch.device) -> Tensor | None:
        """`weights` as float32 (classes,) on the device."""
        return None if self.weights is None else torch.tensor(self.weights, dtype=torch.float32, device=device)


def read_conditions(config: TrainConfig, shards: Shards) -> Conditions:
    """The conditions of the configured label table, checked against the method and the data.

    Raises:
        UserError: the table does not fit the method, lacks what is asked of it, or was made for other data.
    """
    path, method, softness = config.labels, METHODS[config.method.name], config.label_softness
    table = read_table(path) if path else None
    if table is not None and table.metadata.get("fingerprint") != shards.fingerprint:
        raise UserError(
            f"labels={path} was made for other data than {shards.directory!r} (its fingerprint is "
            f"{table.metadata.get('fingerprint')}, the data's {shards.fingerprint}): make it again for this data"
        )
    method.check(table, len(shards))
    names = method.class_names(table, config.classes)
    clustered = min(config.recluster_count, len(shards))
    if method.reclusters and clustered < len(names):
        raise UserError(f"method={method.name}: {len(names)} clusters of {clustered} images (recluster_count, or all)")
    if table is None:
        counts = np.full(len(names), len(shards) / len(names))
        return Conditions(method, names, counts.tolist(), fake_distribution(config, counts), None)
    if softness and table.probabilities is None:
        raise UserError(f"label_softness={softness}: labels={path} has no probabilities; make it with soft=true")
    if config.min_confidence:
        table = table.select(np.flatnonzero(table.confidence >= config.min_confidence))
        if not len(table):
            raise UserError(f"min_confidence={config.min_confidence}: labels={path} has no label as sure as that")
    counts = np.bincount(table.labels, minlength=len(names))
    described = {**table.metadata, "path": path}
    return Conditions(method, names, counts.tolist(), fake_distribution(config, counts), table, softness, described)


def fake_distribution(config: TrainConfig, counts: np.ndarray) -> list[float] | None:
    """How often each class is drawn for a fake, given the real images of each (classes,); None is uniform."""
    method = METHODS[config.method.name]
    weights = {
        FakeLabels.method: method.fake_weights(counts),
        FakeLabels.uniform: Method.fake_weights(method, counts),
        FakeLabels.table: counts / counts.sum(),
    }[config.fake_labels]
    if weights is None and method.reclusters:
        weights = np.full(len(counts), 1 / len(counts))  # explicit, so that the next clusters can change them
    return None if weights is None else weights.tolist()


@dataclass
class TrainingLabels:
    """Labels of the real images by their index, as a label table or a re-clustering has them.

    `labels` (samples,) int32, -1 for none, replaced by a re-clustering; `probabilities` (samples, classes) float16, of
    which a share of `label_softness` replaces as much of the label.
    """

    labels: np.ndarray | None
    probabilities: np.ndarray | None = None
    label_softness: float = 0.0

    def of(self, indices: Tensor) -> Tensor:
        """Of samples (n,) int64: labels (n,) int64, or soft labels (n, classes) float32 with a `label_softness`.

        An unlabelled sample has -1, or zeros.
        """
        if self.labels is None:
            return torch.full_like(indices, -1)
        labels = torch.from_numpy(self.labels[indices.numpy()].astype(np.int64))
        if self.probabilities is None:
            return labels
        soft = torch.from_numpy(self.probabilities[indices.numpy()].astype(np.float32))
        return one_hot(labels, soft.shape[1]).lerp(soft, self.label_softness)


def open_training_labels(run: Run[TrainConfig], conditions: Conditions, shards: Shards) -> TrainingLabels:
    """Writes the labels as one array into the run's directory, on the main rank, and maps it on every rank."""
    labels, probabilities = run.dir / "labels.i32", run.dir / "probabilities.f16"
    table = conditions.table
    if table is None:
        return TrainingLabels(None)
    if run.is_main:
        merged = merge(table, shards, labels)
        if conditions.label_softness:
            assert table.probabilities is not None
            _write_probabilities(probabilities, merged, table.probabilities)
    run.barrier()
    soft = None
    if conditions.label_softness:
        soft = np.memmap(probabilities, np.float16, "r", shape=(len(shards), len(conditions.class_names)))
    return TrainingLabels(open_merged(labels), soft, conditions.label_softness)


def _write_probabilities(path: Path, labels: np.ndarray, rows: np.ndarray) -> None:
    """Writes the table's row for every labelled sample, zeros for the others."""
    aligned = np.zeros((len(labels), rows.shape[1]), np.float16)
    aligned[labels >= 0] = rows  # both are in index order
    write_atomically(path, aligned.tobytes())


def write_network(run: Run[TrainConfig], conditions: Conditions, shards: Shards, z_dim: int, heads: HeadPlan) -> None:
    """Writes RUN/network.json: all that it takes to build the networks again.

    Raises:
        UserError: the run was started with other data or another label table.
    """
    config = run.config
    network = {
        "network": config.network.name,
        "size": shards.size,
        "channels": shards.channels,
        "width": config.width,
        "z_dim": z_dim,
        "g_spectral_norm": config.g_spectral_norm,
        "d_spectral_norm": config.d_spectral_norm,
        "classes": len(conditions.class_names),
        "class_names": conditions.class_names,
        "class_counts": conditions.counts,
        "fake_weights": conditions.weights,
        "heads": heads_to_json(heads),
        "data_fingerprint": shards.fingerprint,
        "label_table": conditions.described,
    }
    path = run.dir / "network.json"
    check_facts(path, network, "other data or another label table")
    run.barrier()  # every rank has compared before one writes
    run.on_main(lambda: write_json(path, network))
