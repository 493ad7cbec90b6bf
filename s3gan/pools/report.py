"""What a person looks at after a pool is made: its classes, and next to them what its filters rejected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.data.shards import Shards
from cluster_jobs.reporting.grids import save_grid
from cluster_jobs.reporting.section import Picture, Section
from s3gan.pools.rejection import RejectionSampler, examples

CLASSES, COLUMNS = 20, 10  # shown at most


def write_report(out: Path, pool: dict[str, Any], sampler: RejectionSampler) -> None:
    """Writes the report's section: one row of samples per class, what made the pool, and what its filters did.

    Args:
        pool: pool.json of the finished pool.
    """
    shards = Shards(out)
    classes = np.flatnonzero(np.bincount(sampler.labels, minlength=len(shards.classes)))[:CLASSES].tolist()
    names = ", ".join(shards.classes[number] for number in classes)
    rows = [np.flatnonzero(sampler.labels == number)[:COLUMNS].tolist() for number in classes]
    _save(out / "report" / "pool.png", [[shards.image(index) for index in row] for row in rows], COLUMNS)
    pictures = [Picture("pool.png", f"one class a row: {names}")]
    if pool.get("filter"):
        _save_rejected(out / "report" / "rejected.png", sampler, classes, pool["filter"]["calibration"])
        caption = f"kept on the left, rejected on the right, as they were drawn; one class a row: {names}"
        pictures.append(Picture("rejected.png", caption))
    checkpoint = pool["checkpoint"]
    Section(
        "pool",
        title="Generated pool",
        text=f"{pool['count']:,} images by {checkpoint['file']} after {checkpoint['nimg']:,} images seen, "
        f"truncation {pool['truncation'] or 'none'}, classes {pool['balance']}, {_filters(pool)}.",
        **_table(pool),
        pictures=pictures,
    ).write(out)


def _filters(pool: dict[str, Any]) -> str:
    asked = pool.get("filter") or {}
    words = []
    if "keep_score" in asked:
        words.append(f"the discriminator's best {asked['keep_score']:.0%} of each class")
    if "agree" in asked:
        words.append(f"a classifier must see the class, with a probability of at least {asked['agree_min']:g}")
    return "filters: " + " and ".join(words) if words else "no filters"


def _table(pool: dict[str, Any]) -> dict[str, Any]:
    counts = pool["counts"]
    if not pool.get("filter"):
        return {"columns": ["class", "images"], "rows": list(counts.items())}
    rate, scores = pool["kept_rate"], pool["calibrated"]["thresholds"].get("score", {})
    columns = ["class", "images", "drawn", "kept", *(["least score"] if scores else [])]
    rows = [
        [name, count, pool["drawn"][name], f"{rate[name]:.1%}", *([f"{scores[name]:.3f}"] if scores else [])]
        for name, count in counts.items()
        if count
    ]
    return {"columns": columns, "rows": rows}


def _save_rejected(path: Path, sampler: RejectionSampler, classes: Sequence[int], count: int) -> None:
    rows = []
    for number in classes:
        half = COLUMNS // 2
        kept, rejected = examples(sampler.maker, sampler.thresholds, number, count, half)
        gap = [np.full_like((kept + rejected)[0], 255)]
        rows.append(kept + gap * (half - len(kept) + 1) + rejected)
    _save(path, rows, COLUMNS + 1)


def _save(path: Path, rows: list[list[np.ndarray]], columns: int) -> None:
    """A grid of images uint8 (C, H, W), rows filled up with white."""
    blank = np.full_like(rows[0][0], 255)
    images = np.stack([image for row in rows for image in row + [blank] * (columns - len(row))])
    save_grid(path, images, columns, scale=2 if blank.shape[-1] < 64 else 1)
