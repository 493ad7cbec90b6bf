"""Scores a run or a pool against real images: ``accelerate launch -m s3gan.evaluate run=RUN data=DIR`` (``pool=POOL``).

Writes ``scores.json`` and a section of the report. The same command again finds what is finished; detectors,
features of real images and classifiers lie in ``cache``, which several evaluations of one data set may share.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.config import MISSING, CommandKeys, command, group, key, to_dict
from cluster_jobs.errors import UserError
from cluster_jobs.files import read_json, write_json
from cluster_jobs.job import Job
from cluster_jobs.shards import Shards
from cluster_jobs.stores import child, is_remote
from s3gan.metrics.detector import class_names
from s3gan.metrics.labelled import Labelled, digest
from s3gan.metrics.summary import result_lines, write_summary
from s3gan.metrics.trained import NotAvailable
from s3gan.sampling import Balance
from s3gan.scores import Evaluation, Result, accuracies, distances
from s3gan.subject import Subject, pool_subject, run_subject
from selfsup.classifier import ClassifierRecipe
from selfsup.labels import aligned_labels, read_table


class Split(Enum):
    train = "train"
    test = "test"


@dataclass
class EvaluateConfig(CommandKeys):
    """Scores generated images: distances on a detector's features, and classifiers trained on them."""

    data: str = key(MISSING, "directory with the real images: train and test", path=True)
    run: str = key("", "run directory of s3gan.train, whose generator draws the images", path=True)
    pool: str = key("", "or the pool to score", path=True)
    out: str = key("", "where scores.json goes; RUN/evaluation or POOL/evaluation by default", path=True)
    cache: str = key("", "detectors and classifiers to share between evaluations; OUT/cache by default", path=True)
    count: int = key(10_000, "generated images: behind a distance; of a run, also those that its classifier trains on")
    balance: Balance = key(Balance.table, "run: classes as often as in its label table, or equally often")
    truncation: float = key(0.0, "run: cut the noise off at this absolute value; 0 cuts nothing off")
    checkpoint: str = key("last", "run: last, best, or the path of a checkpoint", path=True)
    reference: Split = key(Split.test, "real images that distances are measured to; the floor is that of the others")
    cas: bool = key(True, "train classifiers on the images and on real ones, and test them on real test images")
    budget: str = key("", "label table of the revealed labels; by default those that the run's table holds", path=True)
    classifier: ClassifierRecipe = group(ClassifierRecipe, "how detector and classifiers are trained")


@command(EvaluateConfig)
def main(config: EvaluateConfig) -> None:
    check(config)
    if config.validate:
        return
    job = Job.open(config)
    out = Path(config.out or Path(config.run or config.pool) / "evaluation")
    subject = open_subject(config, job)
    train, test = (Shards(child(config.data, split)) for split in ("train", "test"))
    check_fit(subject, train, test)
    if config.budget:
        aligned_labels(
            read_table(config.budget), train
        )  # now rather than after an hour: is it there, is it of this data
    names = max(class_names(train), class_names(test), key=len)
    cache = Path(config.cache) if config.cache else out / "cache"
    evaluation = Evaluation(train, test, names, config.classifier, config.seed, cache, job)
    parts: dict[str, Callable[[Labelled], Result]] = {
        "distances": lambda images: distances(evaluation, images, config.count, config.reference.name)
    }
    if config.cas:
        parts["cas"] = lambda images: accuracies(
            evaluation, images, subject.class_names, subject.label_table, config.budget
        )
    stored = read_json(out / "scores.json") if (out / "scores.json").is_file() else {}
    inputs = describe_inputs(config, subject, train, test)
    due = [name for name in parts if stored.get(name, {}).get("inputs") != inputs[name]]
    written = (out / "report" / "scores.json").is_file()
    job.barrier()  # every rank has looked before one writes
    if due or not written:
        images = subject.draw()
        for name in due:
            stored[name] = {"results": attempt(parts[name], images), "inputs": inputs[name]}
            if job.is_main:
                write_json(out / "scores.json", stored)
        if job.is_main:
            results = {name: stored[name]["results"] for name in parts}
            write_summary(out, results, images, subject.class_names, names, subject.origin)
    for line in result_lines({name: stored[name]["results"] for name in parts}):
        job.say(line)
    job.barrier()


def attempt(part: Callable[[Labelled], Result], images: Labelled) -> Result:
    """A part's results, or why this data cannot have them."""
    try:
        return part(images)
    except NotAvailable as reason:
        return {"n/a": str(reason)}


def check(config: EvaluateConfig) -> None:
    """Raises UserError for what can be known before any input exists."""
    if bool(config.run) == bool(config.pool):
        raise UserError(f"run={config.run!r} pool={config.pool!r}: expected one of the two")
    if is_remote(config.pool) and not config.out:
        raise UserError(f"pool={config.pool}: scores are written to this machine, give out=DIRECTORY")
    if config.count < 2:
        raise UserError(f"count={config.count}: expected at least 2 images")
    if config.truncation < 0:
        raise UserError(f"truncation={config.truncation}: expected 0 (none) or a positive number")
    config.classifier.check()


def open_subject(config: EvaluateConfig, job: Job) -> Subject:
    if config.pool:
        return pool_subject(config.pool)
    return run_subject(
        Path(config.run),
        config.checkpoint,
        count=config.count,
        balance=config.balance,
        truncation=config.truncation,
        seed=config.seed,
        job=job,
    )


def check_fit(subject: Subject, *splits: Shards) -> None:
    """Raises UserError where images have different sizes or channels."""
    for shards in splits:
        if (shards.size, shards.channels) != (subject.size, subject.channels):
            raise UserError(
                f"{subject.origin} makes images of {subject.size} px with {subject.channels} channels, "
                f"{shards.directory} holds {shards.size} px with {shards.channels}"
            )


def describe_inputs(config: EvaluateConfig, subject: Subject, train: Shards, test: Shards) -> dict[str, Any]:
    """All that each part's results depend on; a part with the same inputs is not computed again."""
    common = {
        "images": subject.identity,
        "real": [[shards.fingerprint, digest(np.asarray(shards.hidden_labels()))] for shards in (train, test)],
        "classifier": to_dict(config.classifier),
        "seed": config.seed,
    }
    tables = [Path(path) for path in (config.budget, subject.label_table.get("path", "")) if path]
    known = [digest(np.fromfile(path, np.uint8)) if path.is_file() else None for path in tables]
    return {
        "distances": common | {"count": config.count, "reference": config.reference.name},
        "cas": common | {"tables": known},
    }


if __name__ == "__main__":
    sys.exit(main())
