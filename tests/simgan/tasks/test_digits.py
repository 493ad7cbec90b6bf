"""Whether digits survive refining is read by a classifier of real images; here the real domain is printed as well, so
that it reads what it is shown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster_jobs.cli.config import CommandKeys
from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from simgan.simulators.printed_digits import CLASSES, PrintedDigits
from simgan.tasks import TASKS, TaskName
from simgan.tasks.protocol import Domains, Recipe, RefinedImages, ScoreKeys, TaskScores

SIZE, COUNT = 16, 200
KEYS = ScoreKeys(classifier=Recipe(width=8, steps=80, batch=32, lr=0.01), threads=1)


def printed(split: str) -> tuple[np.ndarray, np.ndarray]:
    source = PrintedDigits(COUNT, SIZE, 0, split)
    return np.stack([source.read(index)[0] for index in range(COUNT)]), source.labels


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Domains:
    """Printed digits on both sides, and a refiner that returns its input."""
    directory = tmp_path_factory.mktemp("real")
    images, labels = printed("real")
    samples = [Sample(f"{i:08d}", encode_png(images[i]), "png", int(labels[i]), None) for i in range(COUNT)]
    write_shard(directory, 0, samples)
    finish_index(directory, 1, classes=CLASSES, size=SIZE, mode="L")
    pool, unseen = (
        RefinedImages(*printed(split)[:1] * 2, printed(split)[1], [None] * COUNT) for split in ("train", "test")
    )
    return Domains(pool, unseen, Shards(directory), Shards(directory))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def scored(domains: Domains, after: np.ndarray, cache: Path) -> TaskScores:
    job = Job.open(CommandKeys(threads=1))
    changed = replace(domains, unseen=replace(domains.unseen, after=after))
    return TASKS[TaskName.digits].score(changed, KEYS, cache, job)


def test_a_run_that_leaves_digits_as_they_are_is_not_flagged(domains: Domains, cache: Path) -> None:
    found = scored(domains, domains.unseen.before, cache)
    assert found.drift is not None and not found.drift.flagged and found.drift.value == 0
    assert found.scores["labels_kept"]["simulated"] == found.scores["labels_kept"]["refined"] > 0.6


def test_a_run_whose_digits_change_and_can_still_be_read_is_not_flagged(domains: Domains, cache: Path) -> None:
    found = scored(domains, np.roll(domains.unseen.before, 1, 3), cache)
    assert found.drift is not None and not found.drift.flagged


@pytest.mark.parametrize("what", ["another digit", "nothing"])
def test_a_run_whose_digits_cannot_be_read_any_more_is_flagged(domains: Domains, cache: Path, what: str) -> None:
    before = domains.unseen.before
    after = np.roll(before, 1, 0) if what == "another digit" else np.full_like(before, 100)
    found = scored(domains, after, cache)
    assert found.drift is not None and found.drift.flagged and found.drift.limit == 0.1
    kept = found.scores["labels_kept"]
    assert found.drift.value == kept["simulated"] - kept["refined"] > 0.4
    assert found.drift.warning().startswith("labels drift: fall of the share of images read as their label")
