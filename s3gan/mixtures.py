"""Which mixture trains the best classifier: ``accelerate launch -m s3gan.mixtures mixes=MIXES data=DIR budget=TABLE``.

Reads MIXES/ROW/SEED, pools of cluster_jobs.mix. The row is chosen by cross-validation on the budget's labels alone; the
accuracies on test images stand beside it and have no part in the choice. Writes mixtures.json and the report's section.
Classifiers lie in ``cache``: the same command again finds them.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from cluster_jobs.config import MISSING, CommandKeys, command, group, key
from cluster_jobs.errors import UserError
from cluster_jobs.files import read_json, write_json
from cluster_jobs.job import Job
from cluster_jobs.sections import write_section
from cluster_jobs.shards import Shards
from cluster_jobs.stores import child
from s3gan.metrics.classes import budget_labels
from s3gan.metrics.detector import class_names
from s3gan.metrics.labelled import from_shards
from s3gan.metrics.paired import Better, mean_and_sd, paired_ratio
from s3gan.mixture_scores import Judge, Mixture, deal
from selfsup.classifier import ClassifierRecipe

COLUMNS = ["mixture", "shares", "seeds", "on the budget, held out", "chosen", "on test images", "ratio to", "verdict"]


@dataclass
class MixturesConfig(CommandKeys):
    """Compares mixtures by the classifiers that they train, and chooses one by the budget's own labels."""

    mixes: str = key(MISSING, "directory with ROW/SEED, pools of cluster_jobs.mix", path=True)
    data: str = key(MISSING, "directory with the real images: train and test", path=True)
    budget: str = key(MISSING, "label table of the revealed labels, by which is chosen", path=True)
    out: str = key(MISSING, "directory to write to", path=True)
    cache: str = key("", "classifiers to share between commands; OUT/cache by default", path=True)
    reference: str = key("budget", "the row that test accuracies are divided by, seed by seed")
    folds: int = key(3, "parts of the budget that are held out in turn; fewer where a class has fewer images")
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
    rows = find(Path(config.mixes), config.reference)
    judge = open_judge(config, out, job)
    scores: dict[str, dict[int, dict[str, float]]] = {}
    for row, directories in rows.items():
        for seed, directory in directories.items():
            mixture = Mixture(directory, judge.train, judge.names)
            found = {"budget": judge.on_budget(mixture, seed), "test": judge.on_test(mixture, seed)}
            scores.setdefault(row, {})[seed] = found
            job.say(f"{row} seed {seed}: {found['budget']:.1%} on the budget, {found['test']:.1%} on test images")
    shares = {row: read_json(next(iter(found.values())) / "pool.json")["shares"] for row, found in rows.items()}
    result = summarise(scores, shares, config.reference)
    if job.is_main:
        write_json(out / "mixtures.json", result | {"folds": int(judge.folds.max()) + 1})
        tell(out, result, int((judge.budget >= 0).sum()), int(judge.folds.max()) + 1, len(judge.test))
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


def open_judge(config: MixturesConfig, out: Path, job: Job) -> Judge:
    train, test = (Shards(child(config.data, split)) for split in ("train", "test"))
    names = max(class_names(train), class_names(test), key=len)
    budget = np.asarray(budget_labels(config.budget, {}, train, names))
    folds = deal(budget, train.keys(), config.folds)
    real = from_shards(test, np.asarray(test.hidden_labels()))
    cache = Path(config.cache) if config.cache else out / "cache"
    return Judge(train, names, budget, folds, real, config.classifier, cache, job)


def summarise(
    scores: dict[str, dict[int, dict[str, float]]], shares: dict[str, dict[str, float]], reference: str
) -> dict[str, Any]:
    """Means, ratios to the reference on test images, and the row with the best mean on the budget (ties: the first)."""
    rows: dict[str, Any] = {}
    for row, by_seed in scores.items():
        test, base = ({seed: found["test"] for seed, found in scores[name].items()} for name in (row, reference))
        ratio = None if row == reference else paired_ratio(test, base)
        rows[row] = {
            "shares": shares[row],
            "seeds": by_seed,
            "budget_mean": mean_and_sd([found["budget"] for found in by_seed.values()])[0],
            "test": mean_and_sd(list(test.values())),
            "ratio": None if ratio is None else [ratio.value, ratio.low, ratio.high],
            "verdict": "reference" if row == reference else ratio.verdict(Better.higher) if ratio else "no pair",
        }
    chosen = max(rows, key=lambda row: rows[row]["budget_mean"])
    best = max(rows, key=lambda row: rows[row]["test"][0])
    return {"reference": reference, "chosen": chosen, "best_on_test": best, "rows": rows}


def tell(out: Path, result: dict[str, Any], labels: int, folds: int, tested: int) -> None:
    """Prints the table and writes it as the report's section."""
    lines = []
    for row, found in result["rows"].items():
        mean, sd = found["test"]
        ratio = found["ratio"]
        lines.append(
            [
                row,
                " ".join(f"{name} {share:g}" for name, share in found["shares"].items()),
                str(len(found["seeds"])),
                f"{found['budget_mean']:.1%}",
                "chosen" if row == result["chosen"] else "",
                f"{mean:.1%}" + ("" if sd is None else f" ± {sd:.1%}"),
                ""
                if ratio is None
                else f"{ratio[0]:.3f}" + ("" if ratio[1] is None else f" [{ratio[1]:.3f}, {ratio[2]:.3f}]"),
                found["verdict"],
            ]
        )
    columns = [f"ratio to {result['reference']}" if name == "ratio to" else name for name in COLUMNS]
    write_section(
        out,
        "mixtures",
        title=f"Mixtures at {labels:,} revealed labels",
        text=f"Accuracy of classifiers that each mixture trains. Chosen: the best mean over {folds} held-out folds of "
        f"the budget; the {tested:,} test images have no part in it. Ratios are over seeds, with 95 % t intervals. "
        "The GAN learned from the whole budget, held-out images included: mixtures with its images are judged kindly.",
        columns=columns,
        rows=lines,
    )
    table = Table(*columns, box=None)
    for line in lines:
        table.add_row(*line)
    console = Console()
    console.width = max(console.width, 140)
    console.print(table, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
