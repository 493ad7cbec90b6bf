"""Scores refined images: ``accelerate launch -m simgan.evaluate task=digits run=RUN synthetic=SYN real=DIR``.

Writes RUN/evaluation/scores.json and sections of the report. Scores read the labels of real images and do not influence
training.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_json
from cluster_jobs.core.output_directory import OutputDirectory
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores.base import child
from cluster_jobs.distributed.job import Job
from simgan.networks.refiner import Refiner
from simgan.networks.trained_refiner import check_images, load_refiner, refine_images
from simgan.tasks import TASKS, TaskName
from simgan.tasks.protocol import Domains, RefinedImages, ScoreKeys, TaskScores


@dataclass
class RefinerEvaluateConfig(ScoreKeys):
    """Scores what can be learned from simulated, refined and real images, and whether labels survive refining."""

    task: TaskName = option(TaskName.digits, "digits, gaze, hand, or folder: any images")
    run: str = option(MISSING, "run directory of simgan.train", path=True)
    synthetic: str = option(MISSING, "directory with train/ and test/, as simgan.pack writes it", path=True)
    real: str = option(MISSING, "directory with train/ and test/, as cluster_jobs.pack writes it", path=True)
    limit: int = option(20_000, "simulated images of a split to use, at most: the first ones")
    checkpoint: str = option("last", "last, best, or the path of a checkpoint", path=True)
    out: str = option("", "directory to write to; by default RUN/evaluation", path=True)
    cache: str = option("", "trained networks, to share between evaluations; by default OUT/cache", path=True)

    def check(self) -> None:
        """Raises UserError for a number outside its range."""
        super().check()
        if self.estimator.augment and self.task is TaskName.hand:
            raise UserError("estimator.augment=true: expected false for task=hand, whose estimator always turns hands")
        if self.limit < 2:
            raise UserError(f"limit={self.limit}: expected at least 2 images")


@command(RefinerEvaluateConfig)
def main(config: RefinerEvaluateConfig) -> None:
    config.check()
    if config.validate:
        return
    job, out, task = Job.open(config), Path(config.out or Path(config.run) / "evaluation"), TASKS[config.task]
    synthetic, real = (
        {split: Shards(child(directory, split)) for split in ("train", "test")}
        for directory in (config.synthetic, config.real)
    )
    task.check_scoring(synthetic["train"], real["train"])
    refiner, info = load_refiner(config.run, config.checkpoint, job.device)
    check_images(synthetic["train"], info["network"])
    pool, unseen = (refine(refiner, synthetic[split], config.limit, job) for split in ("train", "test"))
    cache = Path(config.cache) if config.cache else out / "cache"
    with OutputDirectory(out).locked(job.on_main):
        scored = task.score(Domains(pool, unseen, real["train"], real["test"]), config, cache, job)
        if job.is_main:
            write(out, scored, info["nimg"], info["weights"])
        job.barrier()


def refine(refiner: Refiner, synthetic: Shards, limit: int, job: Job) -> RefinedImages:
    """The first images of the shards, simulated and refined, with their labels, which a simulator knows."""
    count = min(len(synthetic), limit)
    if count < len(synthetic):
        job.say(f"of the {len(synthetic):,} images of {synthetic.directory} the first {count:,} are used (limit=)")
    synthetic.prefetch(np.arange(count))
    before = np.stack([synthetic.image(index) for index in range(count)])
    after = refine_images(refiner, before, job.device)
    annotations = [synthetic.annotation(index) for index in range(count)]
    return RefinedImages(before, after, np.asarray(synthetic.hidden_labels()[:count]), annotations)


def write(out: Path, scored: TaskScores, nimg: int, weights: str) -> None:
    """Writes scores.json and the sections; the first one says how long R was trained and whether labels drift."""
    drift = scored.drift
    flags, warning = ({}, "") if drift is None else (drift.to_dict(), drift.warning())
    write_json(out / "scores.json", {"nimg": nimg, "weights_sha256": weights, **scored.scores, **flags})
    first, *others = scored.sections
    notes = [f"After {nimg:,} synthetic images.", first.text, f"Warning: {warning}." if warning else ""]
    for section in (replace(first, text=" ".join(filter(None, notes))), *others):
        section.write(out)
    if warning:
        print(f"warning: {warning}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
