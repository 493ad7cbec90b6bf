"""Scores a run or a pool against real images: ``accelerate launch -m s3gan.evaluate run=RUN data=DIR`` (``pool=POOL``).

Writes ``scores.json`` and sections of the report. Running the command again resumes it; detectors, features of real
images and classifiers are stored in ``cache``, which several evaluations of one data set may share.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from cluster_jobs.cli.config import command
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.output_directory import OutputDirectory
from cluster_jobs.data.label_table import aligned_labels, read_table
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores.base import child
from cluster_jobs.distributed.job import Job
from s3gan.evaluation.config import EvaluateConfig
from s3gan.evaluation.evaluated_images import Draw, EvaluatedImages, images_of_pool, images_of_run
from s3gan.evaluation.feature_space import Evaluation
from s3gan.evaluation.score_file import Result, ScoreFile
from s3gan.evaluation.summary import DISTANCES, SummaryContext, result_lines, write_summary
from s3gan.evaluation.tasks import plan_tasks
from s3gan.metrics.detector import class_names
from s3gan.metrics.labelled import Labelled
from s3gan.metrics.trained import NotAvailable
from selfsup.labelling.classifier import ShardPictures


@command(EvaluateConfig)
def main(config: EvaluateConfig) -> None:
    if config.validate:
        return
    job = Job.open(config)
    out = Path(config.out or Path(config.run or config.pool) / "evaluation")
    evaluated = open_images(config, job)
    train, test = (Shards(child(config.data, split)) for split in ("train", "test"))
    check_fit(evaluated, train, test)
    if config.budget:  # now rather than after an hour: is it there, is it of this data
        aligned_labels(read_table(config.budget), train)
    names = max(class_names(train), class_names(test), key=len)
    cache = Path(config.cache) if config.cache else out / "cache"
    evaluation = Evaluation(train, test, names, config.classifier, config.seed, cache, job)
    tasks = plan_tasks(config, evaluation, evaluated)
    wanted = {name: task.inputs for name, task in tasks.items()}
    section = out / "report" / f"scores{config.suffix}.json"

    def finished() -> bool:
        return section.is_file() and not ScoreFile(out / "scores.json", wanted).any_due()

    with OutputDirectory(out, finished).locked(job.on_main):
        scores, written = ScoreFile(out / "scores.json", wanted), section.is_file()
        job.barrier()  # every rank has looked before one writes
        context = None
        if scores.any_due() or not written:
            for number, draw in enumerate(evaluated.draws):
                due = scores.due(number)
                if not due and number:
                    continue
                images = draw.make()
                context = context or SummaryContext(
                    evaluated.origin, images, evaluated.class_names, names, ShardPictures(train)
                )
                for name in due:
                    scores.add(name, number, attempt(tasks[name].compute, draw, images))
                    if job.is_main:
                        scores.write()
        results = {name.removesuffix(config.suffix): result for name, result in scores.results().items()}
        draws = scores.by_draw([name + config.suffix for name in DISTANCES])
        if context and job.is_main:
            write_summary(out, results, context, draws, config.suffix)
        for line in result_lines(results, draws):
            job.say(line)
        job.barrier()


def attempt(compute: Callable[[Draw, Labelled], Result], draw: Draw, images: Labelled) -> Result:
    """A task's results, or why this data cannot have them."""
    try:
        return compute(draw, images)
    except NotAvailable as reason:
        return {"n/a": str(reason)}


def open_images(config: EvaluateConfig, job: Job) -> EvaluatedImages:
    if config.pool:
        return images_of_pool(config.pool)
    return images_of_run(
        Path(config.run),
        config.checkpoint,
        count=config.count,
        balance=config.balance,
        truncation=config.truncation,
        seed=config.seed,
        sample_seeds=config.sample_seeds,
        checkpoints=config.checkpoints,
        job=job,
    )


def check_fit(evaluated: EvaluatedImages, *splits: Shards) -> None:
    """Raises UserError where images have different sizes or channels."""
    for shards in splits:
        if (shards.size, shards.channels) != (evaluated.size, evaluated.channels):
            raise UserError(
                f"{evaluated.origin} makes images of {evaluated.size} px with {evaluated.channels} channels, "
                f"{shards.directory} holds {shards.size} px with {shards.channels}"
            )


if __name__ == "__main__":
    sys.exit(main())
