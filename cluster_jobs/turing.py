"""A visual Turing test: can people tell generated images from real ones?

``python -m cluster_jobs.turing real=DIR/test fake=POOL out=TEST`` writes TEST/turing.html, to be sent to people, and
TEST/key.json, to be kept; ``python -m cluster_jobs.turing score=ANSWERS.json`` (or a directory of such files) says how
they did.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cluster_jobs.cli.config import command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_atomically, write_json
from cluster_jobs.core.output_directory import OutputDirectory
from cluster_jobs.data.images import shape_text
from cluster_jobs.data.shards import Shards
from cluster_jobs.reporting.section import Section
from cluster_jobs.turing_test.page import KINDS, draw, key_of, page
from cluster_jobs.turing_test.score import CONFIDENCE, Confusion, confusion, pooled, read_answers, read_key

KEY, PAGE = "key.json", "turing.html"


@dataclass
class TuringConfig:
    """Writes a test page of real and generated images (real=, fake=, out=), or scores what people answered (score=)."""

    real: str = option("", "shards of real images", path=True)
    fake: str = option("", "shards of generated or refined images", path=True)
    out: str = option("", "directory for turing.html and key.json", path=True)
    count: int = option(50, "images of each kind to judge")
    examples: int = option(0, "labelled images of each kind to show beforehand; none of them is asked for")
    title: str = option("Real or fake?", "heading of the page", path=True)
    scale: int = option(0, "screen pixels an image pixel; 0 chooses")
    seed: int = option(0, "seed of the choice of images; their order is each visitor's own")
    score: str = option(
        "", "answers to score: a file that the page saved, several (split at commas), or a directory of them", path=True
    )
    key: str = option("", "score: the test's key; by default key.json beside the answers", path=True)
    allow_incomplete: bool = option(False, "score: count files with unanswered images too, by what they hold")
    validate: bool = option(False, "check and print the configuration, then exit")


@command(TuringConfig, single_process=True)
def main(config: TuringConfig) -> None:
    make = {name: getattr(config, name) for name in ("real", "fake", "out")}
    if config.score and any(make.values()):
        raise UserError(
            f"score={config.score}: expected no {'=, '.join(name for name in make if make[name])}= beside it"
        )
    if not config.score and not all(make.values()):
        missing = ", ".join(f"{name}=…" for name in make if not make[name])
        raise UserError(f"missing {missing} (to make a test), or score=… (to score one)")
    if config.score:
        score(config)
    else:
        make_test(config)


def make_test(config: TuringConfig) -> None:
    for name, least in (("count", 1), ("examples", 0), ("scale", 0)):
        if getattr(config, name) < least:
            raise UserError(f"{name}={getattr(config, name)}: expected an integer of at least {least}")
    if config.validate:
        return
    real, fake, out = Shards(config.real), Shards(config.fake), Path(config.out)
    for name, shards in zip(KINDS, (real, fake), strict=True):
        if len(shards) < config.count + config.examples:
            raise UserError(
                f"{name}={shards.directory}: {len(shards)} images, expected at least count + examples = "
                f"{config.count + config.examples}"
            )
    if real.shape != fake.shape:
        raise UserError(
            f"real={config.real} and fake={config.fake}: {shape_text(real.shape)} and "
            f"{shape_text(fake.shape)} (channels × height × width), expected the same"
        )
    test = draw(real, fake, config.count, config.examples, config.seed)
    key = key_of(test, real, fake, config.seed)
    with OutputDirectory(out).locked():
        if (out / KEY).is_file() and read_json(out / KEY) != key:
            raise UserError(f"out={config.out}: holds another test, whose key would be lost; choose another directory")
        write_json(out / KEY, key)
        write_atomically(out / PAGE, page(test, config.title, config.scale).encode())
    print(f"{out / PAGE}: send it to people; {out / KEY}: keep it; put what they save beside it and run score=")


def score(config: TuringConfig) -> None:
    if config.validate:
        return
    files = answer_files(config.score)
    key_path = Path(config.key) if config.key else files[0].parent / KEY
    if not key_path.is_file():
        raise UserError(f"{key_path}: no such file; give the {KEY} that was written beside {PAGE} as key=…")
    key = read_key(key_path)
    by_subject: dict[str, Confusion] = {}
    for file in files:
        subject, answers = read_answers(file, key, incomplete=config.allow_incomplete)
        if subject in by_subject:
            raise UserError(f"{file}: the subject {subject!r} has answered in another file already")
        by_subject[subject] = confusion(key["truth"], answers)
    show(by_subject, key_path.parent)


def answer_files(score: str) -> list[Path]:
    """The files that ``score=`` names. A file or directory whose name holds a comma is taken as it is."""
    if Path(score).is_dir():
        files = sorted(path for path in Path(score).glob("*.json") if path.name != KEY)
        if not files:
            raise UserError(f"score={score}: expected at least one file of answers, *.json")
        return files
    files = [Path(score)] if Path(score).exists() else [Path(part.strip()) for part in score.split(",")]
    for file in files:
        if not file.is_file():
            raise UserError(f"score={score}: no such file or directory as {str(file)!r}")
    return files


def show(by_subject: dict[str, Confusion], directory: Path) -> None:
    """Prints the confusion table of all and of each subject, and writes it as a section of the report."""
    everybody = pooled(list(by_subject.values()))
    low, high = everybody.interval()
    verdict = (
        f"{everybody.correct:,} of {everybody.total:,} right ({everybody.accuracy:.1%}, {CONFIDENCE:.0%} interval "
        f"{low:.1%} to {high:.1%}); exact one-sided binomial test against guessing: p = {everybody.p_value():.3g}"
    )
    columns = ["subject", *(f"{kind} → {said}" for kind in KINDS for said in KINDS), "right", "p"]
    rows = [
        [
            name,
            *(one.counts[kind][said] for kind in KINDS for said in KINDS),
            f"{one.accuracy:.1%}",
            f"{one.p_value():.3g}",
        ]
        for name, one in [*by_subject.items(), *([("all", everybody)] if len(by_subject) > 1 else [])]
    ]
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("right", "p"))
    for row in rows:
        table.add_row(*map(str, row))
    console = Console(highlight=False, markup=False, emoji=False)  # subjects' names are shown as they are
    console.print(table)
    console.print(verdict, soft_wrap=True)
    note = "Subjects who see the same images do not err independently, so p is meant for one subject or many images."
    Section(
        "turing",
        title="Visual Turing test",
        text=f"{verdict}.\n\nTruth → answer. {note}",
        columns=columns,
        rows=rows,
    ).write(directory)


if __name__ == "__main__":
    sys.exit(main())
