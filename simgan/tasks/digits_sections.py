"""The sections of the report for the digits task."""

from typing import Any

import numpy as np

from cluster_jobs.data.shards import Shards
from cluster_jobs.reporting.section import Picture, Section
from simgan.tasks.protocol import RefinedImages, sheet

ROWS, COLUMNS = 10, 6  # of pairs.png: one class per row, columns of each kind


def sections(scores: dict[str, Any], pool: RefinedImages, real: Shards) -> list[Section]:
    """A table of scores, one of accuracies per class, and example images of every class that has enough."""
    return [score_section(scores), class_section(scores, real.classes), *pair_section(pool, real)]


def score_section(scores: dict[str, Any]) -> Section:
    """A row for each domain that a classifier was trained on."""
    distances, accuracies, kept = scores["distances"], scores["accuracies"], scores["labels_kept"]
    name = distances["simulated"]["name"]
    floor = distances["real test"]
    return Section(
        "scores",
        title="Simulated, refined, real: what a classifier learns from each",
        text=f"{name}: Frechet distance to the real training images on the features "
        f"of a classifier trained on them, never FID (floor, real test images: {floor['value']:.2f} as "
        f"{floor['name']}). "
        "Accuracy: one classifier trained on each, tested on the real test images. Label kept: synthetic images that "
        "R never saw and that a classifier of real images reads as their label.",
        columns=["trained on", "images", name, "accuracy on real test", "label kept"],
        rows=[
            [
                domain,
                score["train_count"],
                f"{distances[domain]['value']:.2f}" if domain in distances else f"{floor['value']:.2f} (floor)",
                f"{score['accuracy']:.1%}",
                f"{kept[domain]:.1%}" if domain in kept else "n/a",
            ]
            for domain, score in accuracies.items()
        ],
    )


def class_section(scores: dict[str, Any], classes: list[str]) -> Section:
    """A row for each class."""
    accuracies = scores["accuracies"]
    return Section(
        "classes",
        title="Simulated, refined, real: accuracy on real test images by class",
        columns=["class", *accuracies],
        rows=[
            [label, *("n/a" if share is None else f"{share:.1%}" for share in shares)]
            for label, *shares in zip(classes, *(score["per_class"] for score in accuracies.values()), strict=True)
        ],
    )


def pair_section(pool: RefinedImages, real: Shards) -> list[Section]:
    """Simulated | refined | real images, one class per row; refined images are in the order of their originals."""
    truth = np.asarray(real.hidden_labels())
    rows: list[np.ndarray] = []
    for label in range(min(len(real.classes), ROWS)):
        simulated, real_indices = (np.flatnonzero(labels == label)[:COLUMNS] for labels in (pool.labels, truth))
        row = [*pool.before[simulated], *pool.after[simulated], *(real.image(int(index)) for index in real_indices)]
        if len(row) == 3 * COLUMNS:
            rows += row
    if not rows:
        return []  # no class has enough images on both sides
    picture = Picture("pairs.png", "simulated | refined | real", sheet(np.stack(rows), 3 * COLUMNS))
    return [
        Section(
            "pairs",
            title="Simulated | refined | real",
            text=f"A class a row: {COLUMNS} simulated images, the same {COLUMNS} refined, and {COLUMNS} real ones.",
            pictures=[picture],
        )
    ]
