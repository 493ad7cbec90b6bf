"""The conditions of real images by their index: hard or soft labels from a label table, beside the run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cluster_jobs.core.files import write_atomically
from cluster_jobs.data.label_table import merge, open_merged
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.run import Run
from s3gan.networks.base import weights_of
from s3gan.training.conditioning import Conditions


@dataclass
class Targets:
    """The conditions of real images by their index.

    `labels` (samples,) int32, -1 for none, replaced by a re-clustering; `probabilities` (samples, classes) float16, of
    which a share of `softness` replaces as much of the label.
    """

    labels: np.ndarray | None
    probabilities: np.ndarray | None = None
    softness: float = 0.0

    def of(self, indices: Tensor) -> Tensor:
        """Of samples (n,) int64: labels (n,) int64, or soft labels (n, classes) float32 where softness is above 0.

        An unlabelled sample has -1, or zeros.
        """
        if self.labels is None:
            return torch.full_like(indices, -1)
        labels = torch.from_numpy(self.labels[indices.numpy()].astype(np.int64))
        if self.probabilities is None:
            return labels
        soft = torch.from_numpy(self.probabilities[indices.numpy()].astype(np.float32))
        return weights_of(labels, soft.shape[1]).lerp(soft, self.softness)


def open_targets(run: Run, conditions: Conditions, shards: Shards) -> Targets:
    """Writes the labels as one array beside the run, on the main rank, and maps it on every rank."""
    labels, probabilities = run.dir / "labels.i32", run.dir / "probabilities.f16"
    table = conditions.table
    if table is None:
        return Targets(None)
    if run.is_main:
        merged = merge(table, shards, labels)
        if conditions.softness:
            assert table.probabilities is not None
            _write_probabilities(probabilities, merged, table.probabilities)
    run.barrier()
    soft = None
    if conditions.softness:
        soft = np.memmap(probabilities, np.float16, "r", shape=(len(shards), len(conditions.class_names)))
    return Targets(open_merged(labels), soft, conditions.softness)


def _write_probabilities(path: Path, labels: np.ndarray, rows: np.ndarray) -> None:
    """Writes the table's rows at the places of their samples, zeros at the others."""
    aligned = np.zeros((len(labels), rows.shape[1]), np.float16)
    aligned[labels >= 0] = rows  # both are in index order
    write_atomically(path, aligned.tobytes())
