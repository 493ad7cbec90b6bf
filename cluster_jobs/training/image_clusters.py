"""k-means clusters of the training images (not of machines), computed during training: files in RUN/clusters/.

Files are named by the images seen when the clusters were computed. `NIMG.i32` holds the cluster of every training image
and `NIMG.json` the digest of that file and further facts. `NIMG.parquet` is the label table, for methods that write one
when the training ends. A checkpoint was trained with the newest clusters that were computed before it, and names their
digest.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_atomically, write_json
from cluster_jobs.data.label_table import LabelTable, open_merged, write_table
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.checkpoint import load_entry

STATE_NAME = "clusters"  # entry of a checkpoint: `nimg`, at which its clusters were computed, and their `sha256`
NEVER = -1  # as `nimg`: the clusters are those that the run started with


def write_clusters(run: Path, nimg: int, labels: np.ndarray, facts: dict[str, Any]) -> None:
    """Writes the clusters (samples,) int32 computed at `nimg` images, replacing those of a killed process.

    The .json file is written last and makes them valid. `facts` are further values for it.
    """
    _directory(run).mkdir(exist_ok=True)
    for kind in ("json", "parquet"):
        file_of(run, nimg, kind).unlink(missing_ok=True)
    content = labels.tobytes()
    write_atomically(file_of(run, nimg, "i32"), content)
    write_json(file_of(run, nimg, "json"), {"sha256": hashlib.sha256(content).hexdigest(), **facts})


def read_clusters(run: Path, nimg: int, sha256: str | None = None) -> tuple[np.memmap, dict[str, Any]]:
    """The clusters (samples,) int32 computed at `nimg` images, memory-mapped, and their facts.

    Args:
        sha256: the digest that the clusters must have; None where this process has just written them.

    Raises:
        UserError: they are missing, or others than the digest says.
    """
    path, facts = file_of(run, nimg, "i32"), read_facts(run, nimg, sha256)
    if not path.is_file():
        raise UserError(f"{path}: no such file, but the checkpoint was trained with it")
    labels = open_merged(path)
    if sha256 and hashlib.sha256(labels).hexdigest() != sha256:  # type: ignore[arg-type]  # an array is a buffer
        raise UserError(f"{path}: torn or changed (its SHA-256 is not the one that the checkpoint names)")
    return labels, facts


def clusters_of(run: Path, checkpoint: Path) -> np.memmap | None:
    """The clusters (samples,) int32 that a checkpoint of the run was trained with.

    None where it was trained with those that the run started with, or with none.

    Raises:
        UserError: they are missing, or have changed.
    """
    named = named_by(checkpoint)
    return None if named is None else read_clusters(run, *named)[0]


def nimg_of_clusters(run: Path, nimg: int | None = None) -> int | None:
    """The images seen when the clusters were computed that the checkpoint of `nimg` images was trained with.

    Without `nimg`: those of the newest clusters. None where there are no clusters.
    """
    computed = [int(path.stem) for path in _directory(run).glob("[0-9]*.json")]
    return max((at for at in computed if nimg is None or at < nimg), default=None)


def prune(run: Path, now: int, checkpoints: Iterable[int]) -> None:
    """Removes all clusters but the newest, computed at `now` images, and those of the checkpoints (images seen)."""
    _keep(run, lambda nimg: nimg <= now)  # what a killed process computed later is computed again
    kept = {now, *(nimg_of_clusters(run, nimg) for nimg in checkpoints)}
    _keep(run, lambda nimg: nimg in kept)
    for leftover in _directory(run).glob(".*.tmp"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)


def write_tables(run: Path, shards: Shards) -> None:
    """Writes the label tables of all clusters on disk. Confidences are 1: distances to centroids are not stored."""
    for facts_path in sorted(_directory(run).glob("[0-9]*.json")):
        if (path := facts_path.with_suffix(".parquet")).is_file():
            continue
        labels, facts = read_clusters(run, int(facts_path.stem))
        origin, confidence = np.full(len(labels), "cluster"), np.ones(len(labels), np.float32)
        write_table(path, LabelTable(shards.keys(), labels, origin, confidence, metadata=facts["label_table"]))


def named_by(checkpoint: Path) -> tuple[int, str] | None:
    """The images seen when a checkpoint's clusters were computed, and their digest; None as for `clusters_of`."""
    entry = load_entry(checkpoint, STATE_NAME)
    return None if entry is None or entry["nimg"] == NEVER else (entry["nimg"], entry["sha256"])


def read_facts(run: Path, nimg: int, sha256: str | None) -> dict[str, Any]:
    """The facts that were written with the clusters computed at `nimg` images.

    Args:
        sha256: the digest that the clusters must have; None for any.

    Raises:
        UserError: they are missing, or have changed.
    """
    path = file_of(run, nimg, "json")
    if not path.is_file():
        raise UserError(f"{path}: no such file, but the checkpoint was trained with these clusters")
    facts = read_json(path)
    if sha256 and facts["sha256"] != sha256:
        raise UserError(f"{path}: other clusters than those that the checkpoint was trained with")
    return facts


def _keep(run: Path, kept: Callable[[int], bool]) -> None:
    for path in _directory(run).glob("[0-9]*.*"):
        if not kept(int(path.stem)):
            path.unlink(missing_ok=True)


def _directory(run: Path) -> Path:
    return run / "clusters"


def file_of(run: Path, nimg: int, kind: str) -> Path:
    """The path of the i32, json or parquet file of the clusters computed at `nimg` images."""
    return _directory(run) / f"{nimg:012d}.{kind}"
