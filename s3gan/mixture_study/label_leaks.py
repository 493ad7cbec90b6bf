"""Whether the sources of a mixture saw the held-out labels used to compare mixtures.

If this cannot be determined, the labels are treated as seen.

Real images of the mixture itself are taken out before it is scored, so they do not count. Refined images come from
simulated ones: they depend on no label of a real image, unless what was refined is itself a pool, or ψ had an encoder.
Generated images depend on the labels of the GAN's table: a GAN trained with an image's label may repeat that image, and
the classifier that inferred the other labels saw it too. The same applies recursively: if the encoder behind the
classifier or the clusters was initialised from another one, the labels of that one (`encoder_table` of a table's
metadata) count too.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.label_table import aligned_labels, read_table
from cluster_jobs.data.shards import Shards
from cluster_jobs.mixing.sources import REAL
from selfsup.encoders.loading import weights_digest
from selfsup.labelling.classifier import classifier_path, load_classifier


def leak(mixed: dict[str, Any], train: Shards, held_out: np.ndarray) -> str:
    """Why a mixture cannot be compared by some labels, "" where it can.

    Args:
        mixed: pool.json of cluster_jobs.mix.
        train: the real images.
        held_out: (train.count,) bool, those by whose labels it is compared.
    """
    for name, source in mixed["sources"].items():
        reason = "" if name == REAL else _leak_of(source["pool"], train, held_out)
        if reason:
            return f"{name}: {reason}"
    return ""


def _leak_of(pool: dict[str, Any], train: Shards, held_out: np.ndarray) -> str:
    if pool.get("made_by") == "simgan.refine":
        if (pool.get("network") or {}).get("psi_encoder"):
            return "which labels the encoder of its ψ saw is not known"
        return _leak_of(pool["synthetic_pool"], train, held_out) if pool.get("synthetic_pool") else ""
    if pool.get("init_from"):
        return "which labels the run saw that its GAN began from is not known"
    described = pool.get("label_table") or {}
    reason = _leak_of_table(described, train, held_out)
    return reason or _leak_of_filter(pool.get("filter") or {}, classifier_path(Path(described["path"])))


def _leak_of_table(described: dict[str, Any], train: Shards, held_out: np.ndarray) -> str:
    """Of a label table, given its metadata and path, and of all tables behind the encoder that it was made with."""
    if not described.get("path"):
        return "which labels made it is not known"
    path = Path(described["path"])
    try:
        table = read_table(path)
        true = aligned_labels(table.select(np.flatnonzero(table.origin == "true")), train) >= 0
    except UserError as error:
        return f"which labels made it is not known ({error})"
    if table.metadata | {"path": described["path"]} != described:
        return f"its label table {str(path)!r} is another one now"
    seen = int((true & held_out).sum())
    if seen:
        return f"made with {seen:,} of the {int(held_out.sum()):,} held-out labels"
    if not described.get("encoder"):
        return ""
    behind = described.get("encoder_table", {})  # tables of earlier versions do not say
    reason = "" if behind is None else _leak_of_table(behind, train, held_out)
    return reason and f"the encoder behind {path.name}: {reason}"


def _leak_of_filter(asked: dict[str, Any], ours: Path) -> str:
    """A pool may be filtered by a classifier: that of its own label table saw nothing more."""
    if "agree" not in asked:
        return ""
    known = ours.is_file() and weights_digest(load_classifier(ours, torch.device("cpu")))
    return "" if known == asked["agree"]["classifier"]["sha256"] else "its filter's classifier saw unknown labels"
