"""The clusters that a run finds while it trains, as files in RUN/clusters/ named by the images seen till then.

`NIMG.i32` holds the cluster of every training image, `NIMG.json` its digest and what follows from the clusters' sizes,
and `NIMG.parquet`, written when the training ends, is the label table. A checkpoint was trained with the newest
clusters that were found before it, and names their digest.
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
from cluster_jobs.training.checkpoint import load_part

PART = "clusters"  # of a checkpoint: `nimg`, when its clusters were found, and their `sha256`
NEVER = -1  # as `nimg`: the clusters are those that the run started with


def write_clusters(run: Path, nimg: int, labels: np.ndarray, facts: dict[str, Any]) -> None:
    """Writes the clusters (samples,) int32 found at `nimg` images, replacing what a killed life found there; the .json
    comes last and makes them valid. `facts` are JSON."""
    _directory(run).mkdir(exist_ok=True)
    for kind in ("json", "parquet"):
        _file(run, nimg, kind).unlink(missing_ok=True)
    content = labels.tobytes()
    write_atomically(_file(run, nimg, "i32"), content)
    write_json(_file(run, nimg, "json"), {"sha256": hashlib.sha256(content).hexdigest(), **facts})


def read_clusters(run: Path, nimg: int, sha256: str | None = None) -> tuple[np.memmap, dict[str, Any]]:
    """The clusters (samples,) int32 found at `nimg` images, memory-mapped, and their facts.

    Args:
        sha256: the digest that the labels must have; without one they are as they were just written.

    Raises:
        UserError: missing, or not what is asked for.
    """
    path, facts = _file(run, nimg, "i32"), _facts(run, nimg, sha256)
    if not path.is_file():
        raise UserError(f"{path}: no such file, but the checkpoint was trained with it")
    labels = open_merged(path)
    if sha256 and hashlib.sha256(labels).hexdigest() != sha256:  # type: ignore[arg-type]  # an array is a buffer
        raise UserError(f"{path}: torn or changed (its SHA-256 is not the one that the checkpoint names)")
    return labels, facts


def clusters_of(run: Path, checkpoint: Path) -> np.memmap | None:
    """The clusters (samples,) int32 that a checkpoint of the run was trained with; None where it had those that the
    run started with, or none.

    Raises:
        UserError: they are gone, or others now.
    """
    named = _named_by(checkpoint)
    return None if named is None else read_clusters(run, *named)[0]


def in_force(run: Path, nimg: int | None = None) -> int | None:
    """When the clusters were found with which the checkpoint of `nimg` images was trained, None for the newest
    clusters; None where there were none."""
    found = [int(path.stem) for path in _directory(run).glob("[0-9]*.json")]
    return max((at for at in found if nimg is None or at < nimg), default=None)


def changed_network(run: Path, checkpoint: Path | None) -> dict[str, Any]:
    """What the clusters of a checkpoint, None for the newest clusters, change of RUN/network.json: {} where there are
    none.

    Raises:
        UserError: the clusters of the checkpoint are gone, or others now.
    """
    found, sha256 = (in_force(run), None) if checkpoint is None else _named_by(checkpoint) or (None, None)
    if found is None:
        return {}
    facts = _facts(run, found, sha256)
    table = {**facts["label_table"], "path": str(_file(run, found, "parquet"))}
    return {"class_counts": facts["class_counts"], "fake_weights": facts["fake_weights"], "label_table": table}


def prune(run: Path, now: int, checkpoints: Iterable[int]) -> None:
    """Removes all clusters but the newest, found `now`, and those of the checkpoints, given by their images seen."""
    _keep(run, lambda found: found <= now)  # what a killed life found later is found again
    kept = {now, *(in_force(run, nimg) for nimg in checkpoints)}
    _keep(run, lambda found: found in kept)
    for leftover in _directory(run).glob(".*.tmp"):  # of a life that was killed while it wrote
        leftover.unlink(missing_ok=True)


def write_tables(run: Path, shards: Shards) -> None:
    """Writes the label tables of all clusters that are kept. Their confidence is 1: no distance is kept."""
    for facts_path in sorted(_directory(run).glob("[0-9]*.json")):
        if (path := facts_path.with_suffix(".parquet")).is_file():
            continue
        labels, facts = read_clusters(run, int(facts_path.stem))
        origin, confidence = np.full(len(labels), "cluster"), np.ones(len(labels), np.float32)
        write_table(path, LabelTable(shards.keys(), labels, origin, confidence, metadata=facts["label_table"]))


def _named_by(checkpoint: Path) -> tuple[int, str] | None:
    """When the clusters that a checkpoint was trained with were found, and their digest."""
    state = load_part(checkpoint, PART)
    return None if state is None or state["nimg"] == NEVER else (state["nimg"], state["sha256"])


def _facts(run: Path, nimg: int, sha256: str | None) -> dict[str, Any]:
    path = _file(run, nimg, "json")
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


def _file(run: Path, nimg: int, kind: str) -> Path:
    return _directory(run) / f"{nimg:012d}.{kind}"
