from pathlib import Path

import numpy as np
import pytest

from cluster_jobs.cli.config import CommandKeys
from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from simgan.conventions.depth import to_grey
from simgan.estimators.fit import Annotated, fit, predict
from simgan.estimators.hourglass import HandProblem
from simgan.estimators.recipe import EstimatorRecipe
from simgan.simulators import hand_skeleton as skeleton
from simgan.simulators.depth_camera import draw_noise, sense, together
from simgan.simulators.hands import POPULATIONS, DepthHands, drawn_factors, place
from simgan.simulators.ray_casting import render
from simgan.tasks import TASKS, TaskName
from simgan.tasks.hand import close, distances, joints_of, patch_displacement, summary
from simgan.tasks.patches import patch_shifts
from simgan.tasks.protocol import Domains, RefinedImages, ScoreKeys

COUNT, SIZE = 24, 32
TINY = EstimatorRecipe(width=0.03, steps=2, batch=4)


def unchanged(source: DepthHands) -> RefinedImages:
    samples = [source.read(index) for index in range(len(source))]
    images = np.stack([image for image, _, _ in samples])
    return RefinedImages(images, images, np.full(len(samples), -1), [annotation for _, _, annotation in samples])


@pytest.fixture(scope="module")
def hands() -> RefinedImages:
    """Simulated hands of 64 pixels that a refiner has left as they are."""
    return unchanged(DepthHands(COUNT, 64, 0, "test", "simulator"))


def write_hands(directory: Path, count: int, domain: str, *, size: int = SIZE, joints: int = 14) -> Shards:
    source = DepthHands(count, size, 5, "train", domain)
    samples = []
    for index in range(count):
        image, _, annotation = source.read(index)
        told = {**annotation, "joints": annotation["joints"][:joints]}
        samples.append(Sample(f"{index:08d}", encode_png(image), "png", None, told))
    write_shard(directory, 0, samples)
    finish_index(directory, 1, classes=[], size=size, mode="L")
    return Shards(directory)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (1, 0), (-2, 3), (4, 4)])
def test_joints_that_are_moved_are_seen_to_move(hands: RefinedImages, right: int, down: int) -> None:
    after = np.roll(hands.before, (down, right), (2, 3))
    found = patch_displacement(RefinedImages(hands.before, after, hands.labels, hands.annotations))
    assert found["mean"] == pytest.approx(np.hypot(right, down), abs=0.02) and found["sd"] < 0.1
    assert 0.3 * 14 * COUNT < found["joints"] < 14 * COUNT == found["of"]


def test_a_camera_does_not_move_joints_and_another_hand_does(hands: RefinedImages) -> None:
    """Truth: the same hands through the camera's noise, which is what a good refiner would make of them."""
    numbers, _ = drawn_factors(64, 0, "test", "simulator", range(COUNT))
    solid, view = place(numbers, POPULATIONS["simulator"], 64)
    clean = render(view, solid.points, solid.radii, skeleton.BONES, solid.axes)
    noise = together([draw_noise(np.random.default_rng(index), 64) for index in range(COUNT)])
    seen = to_grey(sense(clean, view.centres[:, 2], view.focal, noise))[:, None]
    assert (seen != hands.before).mean() > 0.05
    assert patch_displacement(RefinedImages(hands.before, seen, hands.labels, hands.annotations))["mean"] < 0.2
    other = RefinedImages(hands.before, np.roll(hands.before, 1, 0), hands.labels, hands.annotations)
    assert patch_displacement(other)["mean"] > 3


def test_joints_that_are_wiped_out_count_as_far_away(hands: RefinedImages) -> None:
    blank = patch_displacement(RefinedImages(hands.before, hands.before * 0, hands.labels, hands.annotations))
    assert blank["lost"] == blank["joints"] and blank["mean"] == pytest.approx(4 * 2**0.5)
    half = hands.before.copy()
    half[: COUNT // 2] = 0
    found = patch_displacement(RefinedImages(hands.before, half, hands.labels, hands.annotations))
    assert 0 < found["lost"] < found["joints"]
    assert found["mean"] == pytest.approx(4 * 2**0.5 * found["lost"] / found["joints"])


def test_a_patch_without_structure_along_both_axes_does_not_count() -> None:
    edge = np.zeros((1, 64, 64))
    edge[..., 32:] = 200
    corner = edge.copy()
    corner[:, :32] = 0
    point = np.array([[[32.0, 32.0], [10.0, 10.0]]])
    assert patch_shifts(edge, edge, point).counted.tolist() == [[False, False]]
    assert patch_shifts(corner, corner, point).counted.tolist() == [[True, False]]
    for height, counts in ((120, False), (140, True)):  # a corner's contrast is its height / √2
        one = corner * (height / 200)
        assert patch_shifts(one, one, point).counted[0, 0] == counts
    outside = np.array([[[32.0, -1.0], [32.0, 1.0]]])  # of a corner at the picture's border
    assert patch_shifts(edge, edge, outside).counted.tolist() == [[False, True]]


def test_a_patch_moves_to_the_right_and_down_and_of_equal_places_to_the_nearest() -> None:
    picture = np.zeros((1, 64, 64))
    picture[0, 30:34, 20:26] = 200
    point = np.array([[[23.0, 32.0]]])
    assert patch_shifts(picture, np.roll(picture, (2, -3), (1, 2)), point).moves.tolist() == [[[-3, 2]]]
    band = np.zeros((1, 64, 64))
    band[0, 30:34] = 200  # the same at every x
    assert patch_shifts(band, band, point).moves.tolist() == [[[0, 0]]]


def test_a_hole_at_its_edge_does_not_move_a_patch() -> None:
    slope = np.tile(8.0 * np.arange(64).clip(8, 38), (1, 64, 1))
    holed = slope.copy()
    holed[..., 26:28] = 0  # the patch is 9 pixels wide: two to the left it would not see the hole
    assert patch_shifts(slope, holed, np.array([[[23.0, 32.0]]])).moves.tolist() == [[[0, 0]]]


def test_distances_are_of_joints_inside_the_picture() -> None:
    joints = np.array([[[3.0, 4.0], [31.6, 3.0], [-0.4, 31.4]]])
    found = distances(joints + [3, 4], joints, 32)
    assert found.tolist() == pytest.approx([5, 5])
    assert close(224) == 5 and close(64) == pytest.approx(10 / 7)
    told = summary(np.array([1.0, 2.0, 6.0]), 224)
    assert told["mean_pixels"] == 3 and told["median_pixels"] == 2
    assert told["within_5_of_224"] == pytest.approx(2 / 3) and told["joint_count"] == 3


def test_an_hourglass_learns_to_find_a_mark() -> None:
    places = np.random.default_rng(0).integers(3, 13, (114, 1, 2))
    images = np.zeros((114, 1, 16, 16), np.uint8)
    for image, ((x, y),) in zip(images[:, 0], places, strict=True):
        image[y - 1 : y + 2, x - 1 : x + 2] = 255
    job, recipe = Job.open(CommandKeys(threads=1)), EstimatorRecipe(width=0.03, steps=40, batch=16, lr=2e-2)
    data = Annotated(images, places.astype(np.float32))
    network = fit(HandProblem(16, 1), data.first(64), recipe, seed=0, job=job, what="x")
    found = predict(network, images[64:], job.device, 50)
    guessed = np.linalg.norm(places[64:] - places[:64].mean(0), axis=-1).mean()
    assert distances(found, places[64:], 16).mean() < 1 < 0.5 * guessed


def test_a_run_whose_joints_move_is_flagged_and_one_that_changes_nothing_is_not(tmp_path: Path) -> None:
    job, real = Job.open(CommandKeys(threads=1)), write_hands(tmp_path / "real", 6, "camera")
    hands = unchanged(DepthHands(12, SIZE, 0, "test", "simulator"))
    moved = RefinedImages(hands.before, np.roll(hands.before, 2, 3), hands.labels, hands.annotations)
    keys = ScoreKeys(estimator=TINY, threads=1)
    for unseen, flagged in ((hands, False), (moved, True)):
        scored = TASKS[TaskName.hand].score(Domains(hands, unseen, real, real), keys, tmp_path / "cache", job)
        assert scored.drift is not None and scored.drift.flagged is flagged
        rows = scored.scores["joints"]
        assert list(rows) == ["simulated", "simulated ×4", "refined", "refined ×4", "real"]
        assert [row["train_count"] for row in rows.values()] == [3, 12, 3, 12, 6]
        assert rows["simulated"] == rows["refined"]  # nothing was refined
        assert (scored.scores["displacement"]["found_by_estimator"] == 0) is not flagged
        assert [section.name for section in scored.sections] == ["scores", "displacement", "pairs"]
        assert scored.sections[0].pictures[0].png[1:4] == b"PNG"


def test_displacement_that_cannot_be_measured_is_flagged(hands: RefinedImages) -> None:
    nothing = RefinedImages(hands.before * 0, hands.after, hands.labels, hands.annotations)
    assert np.isnan(patch_displacement(nothing)["mean"])


def test_domains_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    task = TASKS[TaskName.hand]
    synthetic = write_hands(tmp_path / "synthetic", 2, "simulator")
    task.check_scoring(synthetic, write_hands(tmp_path / "real", 2, "camera"))
    with pytest.raises(UserError, match="1 × 32 × 32 .* 1 × 48 × 48"):
        task.check(synthetic, write_hands(tmp_path / "large", 2, "camera", size=48))
    with pytest.raises(UserError, match="14 joints in .* but 13 joints in"):
        task.check_scoring(synthetic, write_hands(tmp_path / "fewer", 2, "camera", joints=13))
    with pytest.raises(UserError, match="sample 0 has no 'joints'"):
        joints_of([{"gaze": [0, 0, 1]}], "here")
    with pytest.raises(UserError, match="sample 1 has 1 points of 'joints', the first 2"):
        joints_of([{"joints": [[0, 0, 1]] * 2}, {"joints": [[0, 0, 1]]}], "here")
