"""Refiners that are really trained, against real pictures whose geometry or sharpness the simulator's do not have: what
is free to follow D loses the labels, and ``simgan.evaluate`` says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards
from simgan.simulators.eyes import Eyes
from simgan.tasks.protocol import DriftLimits
from tests.processes import Forked
from tests.simgan.domains import train_words

pytestmark = pytest.mark.cluster
SIZE = HEIGHT, WIDTH = 24, 36
MOVED = 4  # pixels to the right
PATIENCE = 280  # seconds for a command of ten, where others want the processor too


def as_it_is(images: np.ndarray) -> np.ndarray:
    return images


def moved(images: np.ndarray) -> np.ndarray:
    return np.pad(images, ((0, 0), (0, 0), (0, 0), (MOVED, 0)), "edge")[..., :WIDTH]


def washed_out(images: np.ndarray) -> np.ndarray:
    return gaussian_filter(images, (0, 0, 3, 3))


def write_eyes(
    directory: Path,
    count: int,
    seed: int,
    split: str,
    change: Callable[[np.ndarray], np.ndarray] = as_it_is,
    domain: str = "simulator",
) -> Path:
    source = Eyes(count, *SIZE, seed, split, domain)
    read = [source.read(index) for index in range(count)]
    images = change(np.stack([image for image, _, _ in read]))
    samples = [Sample(f"{i:08d}", encode_png(images[i]), "png", None, read[i][2]) for i in range(count)]
    write_shard(directory / split, 0, samples)
    finish_index(directory / split, 1, classes=[], size=SIZE, mode="L")
    return directory


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_eyes(tmp_path_factory.mktemp("simulated"), 320, 0, "train")
    return write_eyes(directory, 40, 0, "test")


def evaluated(
    directory: Path,
    simulated: Path,
    change: Callable[[np.ndarray], np.ndarray],
    regularisation: float,
    images: int,
    domain: str = "simulator",
) -> tuple[dict[str, Any], str]:
    """Trains on changed pictures of a domain as the real ones; the scores and what the evaluation printed."""
    real = write_eyes(directory / "real", 320, 1, "train", change, domain)
    write_eyes(real, 10, 1, "test", change, domain)
    run = directory / "run"
    keys = {"task": "gaze", "fold": 1, "width": 8, "blocks": 2, "batch": 16, "lr_r": 0.006, "rollback": 0}
    lengths = {"total_nimg": images, "log_nimg": images, "checkpoint_nimg": images, "sample_nimg": images}
    warm = {"warm_refiner_nimg": 16, "warm_discriminator_nimg": 320, "history": 160, "ema_nimg": 160}
    words = train_words(
        simulated / "train", real / "train", run, regularisation=regularisation, **keys, **lengths, **warm
    )
    ended = Forked(directory / "train.log", "simgan.train", *words).ended(PATIENCE)
    assert ended.code == 0, ended.output
    words = [f"run={run}", f"synthetic={simulated}", f"real={real}", "task=gaze", "threads=1", "limit=40", "times=1"]
    words += ["estimator.width=0.05", "estimator.steps=2", "estimator.batch=8"]
    ended = Forked(directory / "evaluate.log", "simgan.evaluate", *words).ended(PATIENCE)
    assert ended.code == 0, ended.output
    return json.loads((run / "evaluation" / "scores.json").read_text()), ended.output


def refined(directory: Path, simulated: Path) -> Path:
    words = [f"run={directory / 'run'}", f"synthetic={simulated / 'test'}", f"out={directory / 'pool'}", "threads=1"]
    ended = Forked(directory / "refine.log", "simgan.refine", *words).ended(PATIENCE)
    assert ended.code == 0, ended.output
    return directory / "pool"


def test_without_self_regularisation_irises_follow_the_real_ones_and_the_run_is_flagged(
    tmp_path: Path, simulated: Path
) -> None:
    """Real pictures differ in their place alone, so all that R can learn from D moves labels."""
    free, told = evaluated(tmp_path / "free", simulated, moved, 0, 6400)
    assert free["drift"] and free["drift_measure"].startswith("mean displacement")
    assert 1.5 < free["iris"]["mean"] == free["drift_value"] < MOVED + 1.5
    assert "warning: labels drift: mean displacement of the iris in pixels" in told
    held, told = evaluated(tmp_path / "held", simulated, moved, 0.5, 6400)
    assert not held["drift"] and "warning" not in told
    assert held["iris"]["mean"] < 0.75 and held["iris"]["lost"] == 0


def test_a_refiner_that_is_held_back_takes_on_a_cameras_look_without_its_geometry_and_is_not_flagged(
    tmp_path: Path, simulated: Path
) -> None:
    found, told = evaluated(tmp_path, simulated, moved, 0.5, 6400, "camera")
    before, after = (Shards(directory) for directory in (simulated / "test", refined(tmp_path, simulated)))
    changes = [np.abs(after.image(i).astype(int) - before.image(i)).mean() for i in range(len(before))]
    assert np.mean(changes) > 2  # grey levels: R does not merely return its input
    assert not found["drift"] and "warning" not in told, found


def test_a_refiner_that_washes_irises_out_where_they_are_is_flagged(tmp_path: Path, simulated: Path) -> None:
    found, told = evaluated(tmp_path, simulated, washed_out, 0, 3200)
    assert found["iris"]["mean"] < DriftLimits().pixels  # the displacement would not tell
    assert found["drift"] and found["drift_measure"] == "share of irises that are lost"
    assert found["iris"]["lost"] > 0.5 and "share of irises that are lost" in told
    section = json.loads((tmp_path / "run" / "evaluation" / "report" / "iris.json").read_text())
    assert "of the irises are lost" in section["text"]
