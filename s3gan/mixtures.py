"""Which mixture trains the best classifier: ``accelerate launch -m s3gan.mixtures mixes=MIXES data=DIR budget=TABLE``.

Reads MIXES/ROW/SEED, pools of cluster_jobs.mix; a row is one kind of mixture, made once per seed. The row is chosen by
labels that were held out: parts of the budget in turn, or ``validation=TABLE``, separate validation labels. A row with
a source that saw them (a GAN saw all of its budget) is shown, and not chosen. Test accuracy is reported but not used to
choose. Writes mixtures.json and the report's section. Classifiers are stored in ``cache``, where running the command
again finds them.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster_jobs.cli.config import MISSING, CommandKeys, command, group, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_json
from cluster_jobs.core.output_directory import OutputDirectory
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores.base import child
from cluster_jobs.distributed.job import Job
from s3gan.metrics.classes import budget_labels
from s3gan.metrics.detector import class_names
from s3gan.metrics.labelled import from_shards
from s3gan.mixture_study.label_leaks import leak
from s3gan.mixture_study.report import summarise, tell
from s3gan.mixture_study.scorer import Mixture, MixtureScorer, deal
from selfsup.labelling.classifier import ClassifierRecipe


@dataclass
class MixturesConfig(CommandKeys):
    """Compares mixtures by the classifiers that they train, and chooses one by held-out labels."""

    mixes: str = option(MISSING, "directory with ROW/SEED, pools of cluster_jobs.mix", path=True)
    data: str = option(MISSING, "directory with the real images: train and test", path=True)
    budget: str = option(MISSING, "label table of the revealed labels", path=True)
    validation: str = option(
        "",
        "label table whose labels decide, those of budget= left out; without it parts of the budget are held out, and "
        "rows with images of a GAN are not comparable: it saw them",
        path=True,
    )
    out: str = option(MISSING, "directory to write to", path=True)
    cache: str = option("", "classifiers to share between commands; OUT/cache by default", path=True)
    reference: str = option("budget", "the row that test accuracies are divided by, seed by seed")
    folds: int = option(3, "parts of the budget that are held out in turn; fewer where a class has fewer images")
    classifier: ClassifierRecipe = group(ClassifierRecipe, "how classifiers are trained")

    def check(self) -> None:
        """Raises UserError for a number outside its range."""
        super().check()
        self.classifier.check()
        if self.folds < 2:
            raise UserError(f"folds={self.folds}: expected 2 or more")


@command(MixturesConfig)
def main(config: MixturesConfig) -> None:
    if config.validate:
        return
    job, out = Job.open(config), Path(config.out)
    directories = find(Path(config.mixes), config.reference)
    scorer = open_scorer(config, out, job)
    rows = {
        row: {seed: Mixture(directory, scorer.train, scorer.names) for seed, directory in by_seed.items()}
        for row, by_seed in directories.items()
    }
    with OutputDirectory(out).locked(job.on_main):
        leaks = {row: leak_of(by_seed, scorer) for row, by_seed in rows.items()}
        scores: dict[str, dict[int, dict[str, float]]] = {row: {} for row in rows}
        for row, by_seed in rows.items():
            for seed, mixture in by_seed.items():
                held_out = {} if leaks[row] else {"held_out": scorer.on_held_out(mixture, seed)}
                scores[row][seed] = held_out | {"test": scorer.on_test(mixture, seed)}
                said = (f"{share:.1%} ({name.replace('_', ' ')})" for name, share in scores[row][seed].items())
                job.say(f"{row} seed {seed}: {', '.join(said)}")
        shares = {row: next(iter(by_seed.values())).pool["shares"] for row, by_seed in rows.items()}
        result = summarise(scores, shares, leaks, config.reference) | {
            "budget": int((scorer.budget >= 0).sum()),
            "validation": bool(config.validation),
            "held_out": int((scorer.labels >= 0).sum()),
            "folds": int(scorer.folds.max()) + 1,
            "tested": len(scorer.test),
        }
        if job.is_main:
            write_json(out / "mixtures.json", result)
            tell(out, result)
        job.barrier()


def find(mixes: Path, reference: str) -> dict[str, dict[int, Path]]:
    """The finished mixtures by row and seed. Raises UserError where there are none, or none of the reference."""
    rows: dict[str, dict[int, Path]] = {}
    for file in sorted(mixes.glob("*/*/index.json")):
        row, seed = file.parts[-3:-1]
        if seed.isdecimal():
            rows.setdefault(row, {})[int(seed)] = file.parent
    if reference not in rows:
        raise UserError(f"reference={reference}: expected a row of {str(mixes)!r} ({', '.join(rows) or 'no ROW/SEED'})")
    return rows


def leak_of(by_seed: dict[int, Mixture], scorer: MixtureScorer) -> str:
    """Why a row cannot be judged by held-out labels, "" where it can."""
    reasons = (leak(mixture.pool, scorer.train, scorer.labels >= 0) for mixture in by_seed.values())
    return next(filter(None, reasons), "")


def open_scorer(config: MixturesConfig, out: Path, job: Job) -> MixtureScorer:
    train, test = (Shards(child(config.data, split)) for split in ("train", "test"))
    names = max(class_names(train), class_names(test), key=len)
    budget = np.asarray(budget_labels(config.budget, {}, train, names))
    if config.validation:
        labels = np.where(budget < 0, budget_labels(config.validation, {}, train, names), -1)
        if (labels < 0).all():
            raise UserError(f"validation={config.validation!r}: expected a label that budget={config.budget!r} lacks")
        folds = np.where(labels >= 0, 0, -1)  # mixtures are judged by all at once
    else:
        labels, folds = budget, deal(budget, train.keys(), config.folds)
    real = from_shards(test, np.asarray(test.hidden_labels()))
    cache = Path(config.cache) if config.cache else out / "cache"
    return MixtureScorer(train, names, budget, labels, folds, real, config.classifier, cache, job)


if __name__ == "__main__":
    sys.exit(main())
