"""From a label table to conditions: the classes, the real images' labels, and what fakes are conditioned on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster_jobs.errors import UserError
from cluster_jobs.files import read_json, write_json
from cluster_jobs.run import Run
from cluster_jobs.shards import Shards
from s3gan.methods import Method
from s3gan.networks.biggan import ARCHITECTURES
from selfsup.labels import LabelTable, merge, open_merged, read_table


@dataclass(frozen=True)
class Conditions:
    """`counts` are the real images of each class (expected ones where labels are random); `weights` the distribution of
    the fakes' classes, None for uniform."""

    method: Method
    class_names: list[str]
    counts: Sequence[float]
    weights: list[float] | None
    table: LabelTable | None
    described: dict[str, Any] = field(default_factory=dict)  # the table's metadata and path

    def device_weights(self, device: torch.device) -> torch.Tensor | None:
        """`weights` as float32 (classes,) on the device."""
        return None if self.weights is None else torch.tensor(self.weights, dtype=torch.float32, device=device)


def read_conditions(path: str, method: Method, classes: int, shards: Shards) -> Conditions:
    """The conditions of a label table (`path` may be empty), checked against the method and the data.

    Raises:
        UserError: the table does not fit the method, or was made for other data.
    """
    table = read_table(path) if path else None
    if table is not None and table.metadata.get("fingerprint") != shards.fingerprint:
        raise UserError(
            f"labels={path} was made for other data than {shards.directory!r} (its fingerprint is "
            f"{table.metadata.get('fingerprint')}, the data's {shards.fingerprint}): make it again for this data"
        )
    method.check(table, len(shards))
    names = method.class_names(table, classes)
    if table is None:
        counts = np.full(len(names), len(shards) / len(names))
        return Conditions(method, names, counts.tolist(), None, None)
    counts = np.bincount(table.labels, minlength=len(names))
    weights = method.fake_weights(counts)
    described = {**table.metadata, "path": path}
    return Conditions(method, names, counts.tolist(), None if weights is None else weights.tolist(), table, described)


def open_conditions(run: Run, conditions: Conditions, shards: Shards, width: int) -> np.ndarray | None:
    """Writes RUN/network.json and the labels as one array; returns them, mapped int32 (samples,), or None.

    Raises:
        UserError: the run was started with other data or another label table.
    """
    network = {
        "size": shards.size,
        "channels": shards.channels,
        "width": width,
        "z_dim": ARCHITECTURES[shards.size].z_dim,
        "classes": len(conditions.class_names),
        "class_names": conditions.class_names,
        "class_counts": conditions.counts,
        "fake_weights": conditions.weights,
        "data_fingerprint": shards.fingerprint,
        "label_table": conditions.described,
    }
    path, labels = run.dir / "network.json", run.dir / "labels.i32"
    _check_unchanged(path, network)
    run.barrier()  # every rank has compared before one writes
    if run.is_main:
        if conditions.table is not None:
            merge(conditions.table, shards, labels)
        write_json(path, network)
    run.barrier()
    return None if conditions.table is None else open_merged(labels)


def _check_unchanged(path: Path, network: dict[str, Any]) -> None:
    if not path.is_file():
        return
    frozen = read_json(path)
    different = [name for name in network if frozen.get(name) != network[name]]
    if different:
        raise UserError(
            f"{path.parent} was started with other data or another label table ({', '.join(different)} differ); "
            "choose a new run.dir"
        )
