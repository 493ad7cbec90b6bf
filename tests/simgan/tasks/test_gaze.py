from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cluster_jobs.cli.config import CommandKeys
from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from simgan.conventions.gaze_frame import degrees_between
from simgan.estimators.fit import Annotated, draws, fit, predict, trained_estimator
from simgan.estimators.gaze import GazeEstimator, GazeProblem, blurred
from simgan.estimators.recipe import EstimatorRecipe
from simgan.simulators.eyes import Eyes
from simgan.tasks import TASKS, TaskName
from simgan.tasks.gaze import displacement, gaze_of
from simgan.tasks.iris import fit_irises
from simgan.tasks.protocol import Domains, DriftLimits, RefinedImages, ScoreKeys
from simgan.tasks.training_sets import points_of
from tests.processes import fork
from tests.simgan.domains import train_words

COUNT = 40
TINY = EstimatorRecipe(width=0.05, steps=3, batch=8)


@pytest.fixture(scope="module")
def eyes() -> RefinedImages:
    """Simulated eyes that a refiner has left as they are."""
    return unchanged(Eyes(COUNT, 35, 55, 0, "test", "simulator"))


def unchanged(source: Eyes) -> RefinedImages:
    samples = [source.read(index) for index in range(len(source))]
    images = np.stack([image for image, _, _ in samples])
    return RefinedImages(images, images, np.full(len(samples), -1), [annotation for _, _, annotation in samples])


def write_eyes(directory: Path, count: int, seed: int, domain: str, order: np.ndarray | None = None) -> Shards:
    """Shards of eyes; ``order`` gives the annotation of another picture to each."""
    source = Eyes(count, 35, 55, seed, "train", domain)
    samples = [source.read(index) for index in range(count)]
    told = [samples[int(place)][2] for place in (np.arange(count) if order is None else order)]
    write_shard(
        directory,
        0,
        [Sample(f"{i:08d}", encode_png(samples[i][0]), "png", None, told[i]) for i in range(count)],
    )
    finish_index(directory, 1, classes=[], size=(35, 55), mode="L")
    return Shards(directory)


def test_the_papers_estimator_flattens_9600_values() -> None:
    network = GazeEstimator(1, 35, 55, 1.0)
    assert network.flat == 192 * 5 * 10 == 9600
    shapes = [tuple(weight.shape) for weight in network.parameters() if weight.ndim > 1]
    assert shapes[:3] == [(32, 1, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)]
    assert shapes[3:] == [(80, 64, 3, 3), (192, 80, 3, 3), (1000, 9600), (3, 1000)]


def test_every_sample_is_drawn_once_before_one_is_drawn_again() -> None:
    stream = draws(10, EstimatorRecipe(batch=4), seed=0)
    drawn = np.concatenate([next(stream) for _ in range(10)])
    assert (np.sort(drawn.reshape(4, 10), 1) == np.arange(10)).all() and (drawn[:10] != drawn[10:20]).any()


def test_an_estimator_is_the_same_from_the_cache_and_learns(tmp_path: Path, eyes: RefinedImages) -> None:
    job = Job.open(CommandKeys(threads=1))
    targets = gaze_of(eyes.annotations, "here")
    data = Annotated(eyes.before, targets)
    made = [
        trained_estimator(GazeProblem(), data, TINY, seed=0, cache=tmp_path, job=job, what="estimator") for _ in "ab"
    ]
    first, again = (predict(network, eyes.before, job.device) for network in made)
    assert np.array_equal(first, again) and len(list(tmp_path.glob("*.safetensors"))) == 1
    longer = fit(GazeProblem(), data, EstimatorRecipe(width=0.1, steps=120, batch=20), seed=0, job=job, what="x")
    learned = degrees_between(predict(longer, eyes.before, job.device), targets).mean()
    guessed = degrees_between(targets.mean(0), targets).mean()
    assert learned < 0.7 * guessed


def test_fitted_irises_lie_where_the_simulator_drew_them(eyes: RefinedImages) -> None:
    outlines = np.array([(annotation or {})["iris"] for annotation in eyes.annotations])
    fitted = fit_irises(eyes.before[:, 0], outlines).centres
    errors = np.linalg.norm(fitted - outlines.mean(1), axis=1)
    assert np.median(errors) < 0.5 and errors.mean() < 0.8


@pytest.mark.parametrize(("right", "down"), [(0, 0), (1, 0), (-3, 0), (2, 1)])
def test_irises_that_are_moved_are_seen_to_move(eyes: RefinedImages, right: int, down: int) -> None:
    after = np.roll(eyes.before, (down, right), (2, 3))
    found, *_ = displacement(RefinedImages(eyes.before, after, eyes.labels, eyes.annotations))
    assert abs(found["mean"] - np.hypot(right, down)) < 0.15


def faded(eyes: RefinedImages) -> RefinedImages:
    """What is left is a shadow where the iris was."""
    after = gaussian_filter(eyes.before, (0, 0, 3, 3))
    return RefinedImages(eyes.before, after, eyes.labels, eyes.annotations)


def dimmed(eyes: RefinedImages) -> RefinedImages:
    """As a dark and blurred camera shows them."""
    after = 40 + 0.7 * gaussian_filter(eyes.before.astype(np.float64), (0, 0, 0.7, 0.7))
    return RefinedImages(eyes.before, np.rint(after).astype(np.uint8), eyes.labels, eyes.annotations)


def test_irises_that_fade_away_are_lost_and_those_of_a_dull_camera_are_not(eyes: RefinedImages) -> None:
    found, *_ = displacement(faded(eyes))
    assert found["lost"] > 0.9 and found["mean"] < DriftLimits().pixels  # the displacement alone would not tell
    found, *_ = displacement(dimmed(eyes))
    assert found["lost"] == 0 and found["mean"] < 0.5


def test_a_run_whose_irises_move_or_fade_is_flagged_and_one_that_changes_nothing_is_not(
    tmp_path: Path, eyes: RefinedImages
) -> None:
    job = Job.open(CommandKeys(threads=1))
    real = write_eyes(tmp_path / "real", 12, 5, "camera")
    keys = ScoreKeys(estimator=TINY, drift=DriftLimits(), threads=1)
    moved = RefinedImages(eyes.before, np.roll(eyes.before, 2, 3), eyes.labels, eyes.annotations)
    for unseen, told in ((eyes, ""), (moved, "mean displacement of the iris"), (faded(eyes), "irises that are lost")):
        scored = TASKS[TaskName.gaze].score(Domains(eyes, unseen, real, real), keys, tmp_path / "cache", job)
        assert scored.drift is not None and scored.drift.flagged is bool(told)
        assert ("labels drift" in scored.drift.warning()) is bool(told) and told in scored.drift.warning()
        assert f"{scored.scores['iris']['lost']:.1%} of the irises are lost" in scored.sections[1].text
        assert list(scored.scores["gaze"]) == ["simulated", "simulated ×4", "refined", "refined ×4", "real"]
        counts = [row["train_count"] for row in scored.scores["gaze"].values()]
        assert counts == [10, 40, 10, 40, 12]
        assert scored.scores["gaze"]["simulated"] == scored.scores["gaze"]["refined"]  # nothing was refined


def test_a_sample_without_an_iris_or_with_another_number_of_points_is_refused_by_number() -> None:
    with pytest.raises(UserError, match="here: sample 1 has no 'iris'"):
        points_of([{"iris": [[0, 0], [1, 0], [1, 1]]}, {"gaze": [0, 0, 1]}], "iris", 2, "here")
    with pytest.raises(UserError, match="here: sample 1 has 2 points of 'iris', the first 3"):
        points_of([{"iris": [[0, 0], [1, 0], [1, 1]]}, {"iris": [[0, 0], [1, 0]]}], "iris", 2, "here")


@pytest.mark.cluster
def test_real_annotations_never_reach_training(tmp_path: Path) -> None:
    synthetic = write_eyes(tmp_path / "synthetic", 16, 0, "simulator")
    order = np.random.default_rng(0).permutation(16)
    domains = {
        "true": write_eyes(tmp_path / "true", 16, 1, "camera"),
        "permuted": write_eyes(tmp_path / "permuted", 16, 1, "camera", order),
    }
    weights = []
    for name, real in domains.items():
        words = train_words(Path(synthetic.directory), Path(real.directory), tmp_path / f"run-{name}", fold=1)
        ended = fork(tmp_path / f"log-{name}", "simgan.train", "task=gaze", *words)
        assert ended.code == 0, ended.output
        last = max((tmp_path / f"run-{name}" / "checkpoints").rglob("*.safetensors"))
        weights.append(last.read_bytes())
    assert weights[0] == weights[1]


def test_two_folders_without_labels_are_scored_by_how_much_refining_changes(
    tmp_path: Path, eyes: RefinedImages
) -> None:
    job = Job.open(CommandKeys(threads=1))
    real = write_eyes(tmp_path / "real", 12, 5, "camera")
    brighter = RefinedImages(
        eyes.before, (np.minimum(eyes.before, 245) + 10).astype(np.uint8), eyes.labels, eyes.annotations
    )
    scored = TASKS[TaskName.folder].score(Domains(eyes, brighter, real, real), ScoreKeys(), tmp_path / "cache", job)
    assert scored.drift is None and "distances" not in scored.scores
    assert scored.scores["change"]["train"]["mean_absolute"] == 0
    assert 8 < scored.scores["change"]["unseen"]["brightness"] <= 10


def test_augmented_pictures_differ_in_light_sharpness_and_noise_but_not_in_gaze() -> None:
    images, targets = torch.rand(40, 1, 8, 9) - 0.5, torch.rand(40, 3)
    changed, told = GazeProblem(augmented=True).augment(images, targets, torch.Generator().manual_seed(0))
    assert torch.equal(told, targets) and changed.shape == images.shape
    assert len({float(image.mean()) for image in changed}) == 40
    left, _ = GazeProblem().augment(images, targets, torch.Generator().manual_seed(0))
    assert torch.equal(left, images)


def test_blurring_over_and_over_is_convolving_over_and_over() -> None:
    point = torch.zeros(3, 2, 9, 9)
    point[:, :, 4, 4] = 1
    found = blurred(point, torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1))
    once = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    twice = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    assert torch.equal(found[0], point[0])
    assert np.allclose(found[1, 0, 3:6, 3:6], once) and np.allclose(found[2, 1, 2:7, 2:7], twice)
