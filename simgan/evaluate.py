"""What refining is worth: ``accelerate launch -m simgan.evaluate task=digits run=RUN synthetic=SYN real=DIR``.

Writes RUN/evaluation/scores.json and the report's sections. Scores read the labels of real images; nothing here steers
training.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.config import MISSING, CommandKeys, command, group, key
from cluster_jobs.errors import UserError
from cluster_jobs.files import write_json
from cluster_jobs.images import save_grid
from cluster_jobs.job import Job
from cluster_jobs.sections import write_section
from cluster_jobs.shards import Shards
from cluster_jobs.stores import child
from simgan.refiner import Refiner
from simgan.snapshot import check_images, load_refiner, refine_images
from simgan.tasks import TASKS, TaskName
from simgan.tasks.digits import Recipe, Refined

ROWS, COLUMNS = 10, 6  # of each kind in the picture: a class a row


@dataclass
class EvaluateConfig(CommandKeys):
    """Frechet distances to the real images, and classifiers trained on simulated, on refined and on real images."""

    task: TaskName = key(TaskName.digits, "what is simulated")
    run: str = key(MISSING, "run directory of simgan.train", path=True)
    synthetic: str = key(MISSING, "directory with train/ and test/, as simgan.pack writes it", path=True)
    real: str = key(MISSING, "directory with train/ and test/, as cluster_jobs.pack writes it", path=True)
    limit: int = key(20_000, "simulated images of a split to use, at most: the first ones")
    classifier: Recipe = group(Recipe, "how detector and classifiers are trained, whatever on")
    checkpoint: str = key("last", "last, or the path of a checkpoint", path=True)

    def check(self) -> None:
        """Raises UserError for a number outside its range."""
        super().check()
        self.classifier.check()
        if self.limit < 2:
            raise UserError(f"limit={self.limit}: expected at least 2 images")


@command(EvaluateConfig)
def main(config: EvaluateConfig) -> None:
    config.check()
    if config.validate:
        return
    job, out, task = Job.open(config), Path(config.run) / "evaluation", TASKS[config.task]
    synthetic, real = (
        {split: Shards(child(directory, split)) for split in ("train", "test")}
        for directory in (config.synthetic, config.real)
    )
    task.check_scoring(synthetic["train"], real["train"])
    refiner, info = load_refiner(config.run, config.checkpoint, job.device)
    check_images(synthetic["train"], info["network"])
    pool, unseen = (refine(refiner, synthetic[split], config.limit, job) for split in ("train", "test"))
    common: dict[str, Any] = {"recipe": config.classifier, "seed": config.seed, "cache": out / "cache", "job": job}
    scores = {
        "distances": task.distances(pool, real["train"], real["test"], **common),
        "accuracies": task.accuracies(pool, real["train"], real["test"], **common),
        "labels_kept": task.labels_kept(unseen, real["train"], **common),
    }
    if job.is_main:
        write_json(out / "scores.json", {"nimg": info["nimg"], "weights_sha256": info["weights"], **scores})
        write_sections(out, scores, real["train"].classes, info["nimg"])
        write_picture(out, pool, real["train"])
    job.barrier()


def refine(refiner: Refiner, synthetic: Shards, limit: int, job: Job) -> Refined:
    """The first images of the shards, as they are and refined. A simulator's labels are free, so they are read here."""
    count = min(len(synthetic), limit)
    synthetic.prefetch(np.arange(count))
    before = np.stack([synthetic.image(index) for index in range(count)])
    return Refined(before, refine_images(refiner, before, job.device), np.asarray(synthetic.hidden_labels()[:count]))


def write_sections(out: Path, scores: dict[str, Any], classes: list[str], nimg: int) -> None:
    """The tables of the report: one of scores, one of accuracies per class."""
    distances, accuracies, kept = scores["distances"], scores["accuracies"], scores["labels_kept"]
    name = distances["simulated"]["name"]
    floor = distances["real test"]
    write_section(
        out,
        "scores",
        title="Simulated, refined, real: what a classifier learns from each",
        text=f"After {nimg:,} synthetic images. {name}: Frechet distance to the real training images on the features "
        f"of a classifier trained on them, never FID (floor, real test images: {floor['value']:.2f} as "
        f"{floor['name']}). "
        "Accuracy: one classifier trained on each, tested on the real test images. Label kept: synthetic images that "
        "R never saw and that a classifier of real images reads as their label.",
        columns=["trained on", "images", name, "accuracy on real test", "label kept"],
        rows=[
            [
                domain,
                found["train_count"],
                f"{distances[domain]['value']:.2f}" if domain in distances else f"{floor['value']:.2f} (floor)",
                f"{found['accuracy']:.1%}",
                f"{kept[domain]:.1%}" if domain in kept else "n/a",
            ]
            for domain, found in accuracies.items()
        ],
    )
    write_section(
        out,
        "classes",
        title="Simulated, refined, real: accuracy on real test images by class",
        columns=["class", *accuracies],
        rows=[
            [label, *("n/a" if share is None else f"{share:.1%}" for share in shares)]
            for label, *shares in zip(classes, *(found["per_class"] for found in accuracies.values()), strict=True)
        ],
    )


def write_picture(out: Path, pool: Refined, real: Shards) -> None:
    """Simulated | refined | real: a class a row, the refined images below one another as their originals are."""
    truth = np.asarray(real.hidden_labels())
    rows = []
    for label in range(min(len(real.classes), ROWS)):
        drawn, found = np.flatnonzero(pool.labels == label)[:COLUMNS], np.flatnonzero(truth == label)[:COLUMNS]
        row = [*pool.before[drawn], *pool.after[drawn], *(real.image(int(index)) for index in found)]
        if len(row) == 3 * COLUMNS:
            rows += row
    if not rows:
        return  # no class has enough images on both sides
    save_grid(out / "report" / "pairs.png", np.stack(rows), 3 * COLUMNS, scale=2 if real.width < 64 else 1)
    write_section(
        out,
        "pairs",
        title="Simulated | refined | real",
        text=f"A class a row: {COLUMNS} simulated images, the same {COLUMNS} refined, and {COLUMNS} real ones.",
        pictures=[("pairs.png", "simulated | refined | real")],
    )


if __name__ == "__main__":
    sys.exit(main())
