"""Makes a label table: ``accelerate launch -m selfsup.label data=DIR/train method=... out=FILE.parquet``.

``method=classifier`` keeps its classifier next to the table, as ``FILE.classifier.safetensors``.

Running the command again leaves the existing table unchanged; another configuration for the same file is refused.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from cluster_jobs.cli.config import MISSING, CommandKeys, command, group, option, to_dict
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.output_directory import OutputFile
from cluster_jobs.data.label_table import LabelTable, existing_table, write_table
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from selfsup.encoders.loading import CLASSIFIER_FILE
from selfsup.labelling import inferred
from selfsup.labelling.budget import check_fraction
from selfsup.labelling.classifier import ClassifierRecipe, classifier_path
from selfsup.labelling.clustering import Space
from selfsup.labelling.given import import_labels, reveal
from selfsup.labelling.provenance import labels_seen_by
from selfsup.labelling.report import read_truth, readable, write_report

Method = Enum("Method", ["reveal", "import", "single", "random", "kmeans", "classifier"])  # `import` is a keyword
CLUSTERS = 50


@dataclass
class S4LRecipe(ClassifierRecipe):
    """How the classifier is trained: by default with the rotation loss (S4L)."""

    rotation_weight: float = option(
        1.0, "weight of the rotation loss over all images, beside the budget's labels (S4L)"
    )


@dataclass
class LabelConfig(CommandKeys):
    """Writes a label table: which sample of a data set has which label."""

    data: str = option(MISSING, "shard directory to label", path=True)
    method: Method = option(MISSING, "where labels come from")  # type: ignore[valid-type]
    out: str = option(MISSING, "label table to write (.parquet)", path=True)
    fraction: float = option(0.1, "reveal: the share of every class's labels to reveal, in (0, 1]")
    file: str = option("", "import: CSV of name,class lines", path=True)
    clusters: int = option(0, f"kmeans: clusters, 0 for {CLUSTERS}; random: labels, 0 for the data's classes")
    space: Space = option(Space.l2, "kmeans: what is done to features before distances are compared")
    encoder: str = option(
        "", "kmeans, classifier: run directory or safetensors; kmeans also: TorchScript, feature table", path=True
    )
    labels: str = option("", "classifier: the label table to learn from (the budget)", path=True)
    soft: bool = option(False, "classifier: store the probabilities of all classes too")
    truth: str = option("", "table of true labels; scores the result, never influences it", path=True)
    classifier: S4LRecipe = group(S4LRecipe, "classifier: how it is trained")


@dataclass(frozen=True)
class Labeller:
    """One method: how it labels, the keys that decide its result, and the keys that must be given."""

    label: Callable[[LabelConfig, Shards, Job], LabelTable | None]
    uses: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


LABELLERS = {
    "reveal": Labeller(lambda c, shards, job: reveal(shards, c.fraction, c.seed), ("fraction", "seed")),
    "import": Labeller(lambda c, shards, job: import_labels(shards, c.file), ("file",), ("file",)),
    "single": Labeller(lambda c, shards, job: inferred.single(shards)),
    "random": Labeller(
        lambda c, shards, job: inferred.random(shards, c.clusters or len(shards.classes), c.seed), ("clusters", "seed")
    ),
    "kmeans": Labeller(
        lambda c, shards, job: inferred.cluster(shards, c.encoder, c.clusters or CLUSTERS, c.space, c.seed, job),
        ("encoder", "clusters", "space", "seed"),
        ("encoder",),
    ),
    "classifier": Labeller(
        lambda c, shards, job: inferred.classify(
            shards,
            c.labels,
            c.encoder,
            c.classifier,
            soft=c.soft,
            seed=c.seed,
            keep=classifier_path(Path(c.out)),
            job=job,
        ),
        ("labels", "encoder", "classifier", "soft", "seed"),
        ("labels",),
    ),
}
INPUTS = ("file", "encoder", "labels")  # keys whose value is a path: the content identifies them, not the name


@command(LabelConfig)
def main(config: LabelConfig) -> None:
    labeller = LABELLERS[config.method.name]
    check(config, labeller)
    if config.validate:
        return
    job = Job.open(config)
    shards, out = Shards(config.data), Path(config.out)
    origin = {"method": config.method.name, "fingerprint": shards.fingerprint, **identity(config, labeller)}
    truth = read_truth(config.truth, shards) if config.truth else None
    output = OutputFile(out, finished=out.is_file)  # besides the table there are a classifier, scores and images
    with output.locked(job.on_main):
        table = existing_table(out, origin)
        job.barrier()  # every rank has looked before one writes
        if table is None:
            provenance = {"encoder_table": labels_seen_by(config.encoder)} if "encoder" in labeller.uses else {}
            table = labeller.label(config, shards, job)
            if table is not None and job.is_main:
                table.metadata |= origin | provenance
                write_table(out, table)
        if table is not None and output.holds_lock:  # on the main rank
            for name, value in write_report(out, table, shards, truth).items():
                job.say(f"{name}: {readable(value)}")
        elif table is not None:
            job.say(f"{out} is finished: {len(table):,} labels")
        job.barrier()


def check(config: LabelConfig, labeller: Labeller) -> None:
    """Raises UserError for what is wrong with the keys, before any input exists."""
    check_fraction(config.fraction)
    config.classifier.check()
    for name in labeller.needs:
        if not getattr(config, name):
            raise UserError(f"method={config.method.name} needs {name}=PATH")
    if config.clusters < 0:
        raise UserError(f"clusters={config.clusters}: expected a number of at least 0")
    if Path(config.out).suffix != ".parquet":
        raise UserError(f"out={config.out!r}: expected a file name that ends in .parquet")


def identity(config: LabelConfig, labeller: Labeller) -> dict[str, Any]:
    """The keys that decide the method's result, with the SHA-256 of an input in place of its path."""
    values = {name: to_dict(getattr(config, name)) for name in labeller.uses}
    return values | {name: digest(name, values[name]) for name in INPUTS if values.get(name)}


def digest(name: str, path: str) -> str:
    """The SHA-256 of a file, or of a run's classifier or newest manifest (which holds the digest of its tensors)."""
    file = Path(path)
    candidates = (file, file / CLASSIFIER_FILE, *sorted((file / "checkpoints").glob("*.json"), reverse=True))
    file = next((candidate for candidate in candidates if candidate.is_file()), file)
    if not file.is_file():
        raise UserError(f"{name}={path!r}: expected a file, or a run directory with a checkpoint")
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
