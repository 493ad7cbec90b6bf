"""What a person sees of an evaluation: lines on the terminal, and a section of the report with tables and pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster_jobs.files import write_atomically
from cluster_jobs.images import save_grid
from cluster_jobs.sections import write_section
from s3gan.metrics.labelled import Labelled

GRID_CLASSES, GRID_COLUMNS = 20, 10
TRAINING_SETS = {
    "pool": "pool alone",
    "budget": "label budget alone",
    "budget_and_pool": "budget + pool",
    "all": "all real labels",
}


def result_lines(results: dict[str, Any]) -> list[str]:
    """One line a score, from the results of the parts."""
    lines = []
    for name, score in _scores(results.get("distances", {})):
        lines.append(f"{name}: {_cell(score)}  ({_protocol(score)})")
    for name, found in _accuracies(results.get("cas", {})):
        lines.append(f"accuracy, trained on {TRAINING_SETS.get(name, name)}: {_cell(found)}")
    return lines


def write_summary(
    out: Path,
    results: dict[str, Any],
    images: Labelled,
    image_classes: Sequence[str],
    data_classes: Sequence[str],
    what: str,
) -> None:
    """Writes the report's sections `scores` and `accuracy` with a class grid and per-class bars.

    Args:
        results: of the parts `distances` and, where it was asked for, `cas`.
        images: the scored images, with classes called `image_classes`.
        data_classes: the names behind the per-class accuracies.
    """
    shown = class_grid(out / "report" / "classes.png", images)
    names = ", ".join(image_classes[number] for number in shown)
    rows = [
        [name, _cell(score), score.get("samples", ""), score.get("reference", ""), _protocol(score)]
        for name, score in _scores(results.get("distances", {}))
    ]
    write_section(
        out,
        "scores",
        title=f"Distances of {what} to real images",
        text="Frechet (fd) and kernel (kd) distances on the features of a classifier trained on the real training "
        "images; the floor is the same between two sets of real images. Scores of one detector compare; none is FID.",
        columns=["score", "value", "images", "real images", "protocol"],
        rows=rows,
        pictures=[("classes.png", f"one class a row: {names}")],
    )
    if "cas" in results:
        _write_accuracy(out, results["cas"], data_classes, what)


def class_grid(path: Path, images: Labelled) -> list[int]:
    """A row of pictures a class, for the first classes that have any; returns those classes."""
    classes = np.unique(images.labels)[:GRID_CLASSES].tolist()
    rows = [np.flatnonzero(images.labels == number)[:GRID_COLUMNS] for number in classes]
    sheet = []
    for row in rows:
        pictures = torch.as_tensor(images.images[row]).numpy()
        blank = np.full((GRID_COLUMNS - len(row), *pictures.shape[1:]), 255, np.uint8)
        sheet += [pictures, blank]
    tiles = np.concatenate(sheet)
    save_grid(path, tiles, GRID_COLUMNS, scale=2 if tiles.shape[-1] < 64 else 1)
    return classes


def _write_accuracy(out: Path, cas: dict[str, Any], classes: Sequence[str], what: str) -> None:
    found = dict(_accuracies(cas))
    scored = {name: result for name, result in found.items() if "n/a" not in result}
    rows = [
        [TRAINING_SETS.get(name, name), result.get("train_count", ""), _cell(result), *_per_class(result, len(classes))]
        for name, result in found.items()
    ]
    pictures = []
    if scored:
        _draw_bars(out / "report" / "accuracy.png", scored, classes)
        pictures.append(("accuracy.png", "accuracy on real test images by class"))
    dropped = found.get("pool", {}).get("dropped_images", 0)
    write_section(
        out,
        "accuracy",
        title=f"Accuracy on real test images of classifiers trained on {what}",
        text="Each classifier has the same recipe and number of steps."
        + (f" {dropped:,} images of the pool stand for no class and are left out." if dropped else ""),
        columns=["trained on", "images", "accuracy", *classes],
        rows=rows,
        pictures=pictures,
    )


def _draw_bars(path: Path, results: dict[str, Any], classes: Sequence[str]) -> None:
    from matplotlib.figure import Figure  # imports slowly, and only the main rank draws

    figure = Figure(figsize=(max(6.0, 0.9 * len(classes)), 3.6), layout="constrained")
    axes = figure.subplots()
    places, width = np.arange(len(classes)), 0.8 / len(results)
    for number, (name, result) in enumerate(results.items()):
        heights = [np.nan if share is None else share for share in result["per_class"]]
        axes.bar(places + (number - (len(results) - 1) / 2) * width, heights, width, label=TRAINING_SETS[name])
    axes.set_xticks(places, classes, rotation=30, ha="right", parse_math=False)
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy")
    axes.legend(fontsize="small", ncols=len(results), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def _scores(distances: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [("distances", distances)] if "n/a" in distances else list(distances.items())


def _accuracies(cas: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [("all sets", cas)] if "n/a" in cas else list(cas.items())


def _cell(score: dict[str, Any]) -> str:
    if "n/a" in score:
        return f"n/a ({score['n/a']})"
    if "accuracy" in score:
        return f"{score['accuracy']:.1%}"
    return f"{score['value']:.4f}" + (f" ± {score['sd']:.4f}" if "sd" in score else "")


def _protocol(score: dict[str, Any]) -> str:
    if "n/a" in score:
        return "-"
    return (
        f"{score['samples']:,} images against {score['reference']:,} of {score['split']}, "
        f"detector {score['detector']}, seed {score['seed']}"
    )


def _per_class(result: dict[str, Any], classes: int) -> list[str]:
    shares = result.get("per_class", [None] * classes)
    return ["n/a" if share is None else f"{share:.1%}" for share in shares]
