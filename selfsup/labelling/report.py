"""The report on a label table: examples of every class, confidences and, where true labels are given, accuracy.

True labels are read here only, after the table is written, so that they cannot influence it.
"""

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_atomically, write_json
from cluster_jobs.data.label_table import LabelTable, aligned_labels, read_table
from cluster_jobs.data.shards import Shards
from cluster_jobs.reporting.grids import save_grid
from cluster_jobs.reporting.section import Picture, Section
from selfsup.labelling.clustering import agreement, size_entropy

MAX_CLASSES = 64  # rows of examples.png
EXAMPLES = 12  # images of each class
UNNAMED = ("cluster", "single", "random")  # origins whose labels are not the classes of the data


Truth = tuple[np.ndarray, list[str]]  # true labels (N,) int32, -1 where unknown, and class names


def read_truth(path: str, shards: Shards) -> Truth:
    """True labels for scoring.

    Raises:
        UserError: the table is unreadable, of other shards, or holds labels that are not true.
    """
    table = read_table(path)
    if set(table.origin.tolist()) - {"true"}:
        raise UserError(f"truth={path!r}: holds labels that are not true ones; expected a table of reveal or import")
    return aligned_labels(table, shards), table.classes


def write_report(out: Path, table: LabelTable, shards: Shards, truth: Truth | None) -> dict[str, Any]:
    """Writes ``NAME.metrics.json`` next to the table ``NAME.parquet``, and ``report/NAME.json`` with its pictures.

    Returns:
        The metrics by name; None for scores whose labels are not known.
    """
    labels = aligned_labels(table, shards)
    inferred = table.origin == "inferred"
    metrics = _describe(table, shards)
    confusion = None
    if truth is not None:
        scores, confusion = score(table, labels, truth)
        metrics |= scores
    report = out.parent / "report"
    pictures = [_examples(report / f"{out.stem}_examples.png", table, labels, shards)]
    if inferred.any():
        pictures.append(_histogram(report / f"{out.stem}_confidence.png", table.confidence[inferred]))
    if confusion is not None and inferred.any():
        pictures.append(_matrix(report / f"{out.stem}_confusion.png", confusion, table.classes))
    write_json(out.with_suffix(".metrics.json"), metrics)
    Section(
        out.stem,
        title=f"Labels: {out.stem} ({metrics['method']})",
        text=f"{len(table):,} of {len(shards):,} samples have a label.",
        columns=["measure", "value"],
        rows=[[name, readable(value)] for name, value in metrics.items()],
        pictures=pictures,
    ).write(out.parent)
    return metrics


def readable(value: Any) -> str:
    """A metric as text."""
    if value is None:
        return "n/a"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _describe(table: LabelTable, shards: Shards) -> dict[str, Any]:
    """Metrics of the table that need no true labels."""
    sizes = np.bincount(table.labels, minlength=len(table.classes))
    described = {
        "method": table.metadata["method"],
        "rows": len(table),
        "samples": len(shards),
        "classes": len(sizes),
        "empty classes": int((sizes == 0).sum()),
        "size entropy": size_entropy(sizes),
        "mean confidence": float(table.confidence.mean(dtype=np.float64)),
    }
    if "budget_fitted" in table.metadata:
        described["accuracy on the budget itself"] = table.metadata["budget_fitted"]
    return described


def score(table: LabelTable, labels: np.ndarray, truth: Truth) -> tuple[dict[str, Any], np.ndarray | None]:
    """Scores the labels that were inferred: agreement for clusters and the like, accuracy for labels of classes.

    Args:
        labels: (N,) int32, the table in index order, -1 where it has no label.

    Returns:
        The scores, and for labels of classes the confusion matrix (true class, label).
    """
    true, classes = truth
    given = np.zeros(len(labels), bool)
    given[labels >= 0] = table.origin == "true"
    scored = (labels >= 0) & (true >= 0) & ~given
    scores: dict[str, Any] = {"scored samples": int(scored.sum())}
    if set(table.origin.tolist()) & set(UNNAMED):
        names = ("nmi", "ari", "matched_accuracy", "majority_accuracy")
        agreements = asdict(agreement(labels[scored], true[scored])) if scored.any() else dict.fromkeys(names)
        return scores | {name.replace("_", " "): value for name, value in agreements.items()}, None
    if table.classes != classes:
        raise UserError(
            f"truth= names the classes {', '.join(classes[:20])}; the labels' are {', '.join(table.classes[:20])}"
        )
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (true[scored], labels[scored]), 1)
    right, totals = np.diag(confusion), confusion.sum(axis=1)
    scores["accuracy"] = float(right.sum() / totals.sum()) if scored.any() else None
    for name, hits, total in zip(classes, right.tolist(), totals.tolist(), strict=True):
        scores[f"accuracy of {name}"] = hits / total if total else None
    return scores, confusion


def _examples(file: Path, table: LabelTable, labels: np.ndarray, shards: Shards) -> Picture:
    """One row of images per class: the most confident inferred labels, or the first samples if all are true."""
    indices = np.flatnonzero(labels >= 0)
    given = table.origin == "true"
    sheet = []
    listed = [number for number in range(len(table.classes)) if (table.labels == number).any()][:MAX_CLASSES]
    for number in listed:
        rows = np.flatnonzero((table.labels == number) & ~given)
        rows = rows if rows.size else np.flatnonzero(table.labels == number)
        best = rows[np.argsort(-table.confidence[rows], kind="stable")][:EXAMPLES]
        images = [shards.image(index) for index in indices[best].tolist()]
        white = np.full(shards.shape, 255, np.uint8)
        sheet += images + [white] * (EXAMPLES - len(images))
    save_grid(file, np.stack(sheet), EXAMPLES)
    most = f"the first {len(listed)} of {len(table.classes)} classes" if len(listed) < len(table.classes) else "classes"
    order = "nearest to its centroid first" if "cluster" in table.origin else "surest first"
    names = ", ".join(table.classes[number] for number in listed[:20])
    return Picture(file.name, f"A row for each label ({most}), {order}: {names}{', …' if len(listed) > 20 else ''}")


def _histogram(file: Path, confidence: np.ndarray) -> Picture:
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(confidence, bins=40, range=(0, 1))
    axes.set(xlabel="confidence", ylabel="samples", xlim=(0, 1))
    _save(figure, file)
    return Picture(file.name, f"How sure the classifier is of the {len(confidence):,} labels it inferred")


def _matrix(file: Path, confusion: np.ndarray, classes: list[str]) -> Picture:
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 30:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="inferred label", ylabel="true label")
    figure.colorbar(image, label="share of the true class")
    _save(figure, file)
    return Picture(file.name, "Inferred against true labels, outside the budget (scoring only)")


def _save(figure: Figure, file: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, buffer.getvalue())
