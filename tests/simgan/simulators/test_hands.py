import numpy as np
import pytest

from simgan.conventions.depth import to_depth, to_grey
from simgan.simulators import hand_skeleton as skeleton
from simgan.simulators.depth_camera import draw_noise, quantise, sense, shadow, slope, together
from simgan.simulators.hands import BLOCK, POPULATIONS, DepthHands, draw, drawn_factors, place
from simgan.simulators.ray_casting import render

DOMAINS = ("simulator", "camera")


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_picture_is_a_function_of_seed_split_and_index_whatever_else_is_drawn(domain: str) -> None:
    images, annotations = draw(32, 0, "train", domain, range(40))
    for index in (0, 7, 39):
        alone, told = draw(32, 0, "train", domain, range(index, index + 1))
        assert np.array_equal(alone[0], images[index]) and told[0] == annotations[index]
    for seed, split in ((1, "train"), (0, "test")):
        assert not np.array_equal(draw(32, seed, split, domain, range(1))[0][0], images[0])
    assert len({image.tobytes() for image in images}) == 40


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_source_reads_the_same_in_any_order(domain: str) -> None:
    source = DepthHands(2 * BLOCK + 3, 24, 0, "train", domain)
    images, annotations = draw(24, 0, "train", domain, range(len(source)))
    for index in (2 * BLOCK + 2, 0, BLOCK, BLOCK - 1):
        image, label, told = source.read(index)
        assert np.array_equal(image, images[index]) and told == annotations[index] and label is None
    assert source.digest() != DepthHands(len(source), 24, 1, "train", domain).digest()


def test_surfaces_lie_a_radius_before_the_joints_they_cover_or_nearer() -> None:
    """Every joint is inside the hand; where nothing hides it, what is seen at its pixel is its ball's front."""
    count, size = 200, 64
    images, annotations = draw(size, 3, "train", "simulator", range(count))
    hands, _ = place(drawn_factors(size, 3, "train", "simulator", range(count))[0], POPULATIONS["simulator"], size)
    radii = np.concatenate([hands.radii, np.full((count, 1), skeleton.PALM_AXES.min())], 1)[:, skeleton.JOINTS]
    joints = np.array([annotation["joints"] for annotation in annotations])
    pixels = np.rint(joints[..., :2]).astype(int)
    shown = ((pixels >= 0) & (pixels < size)).all(-1) & (np.abs(joints[..., 2]) < 140)
    assert shown.mean() > 0.97
    sample, joint = np.nonzero(shown)
    x, y = pixels[sample, joint].T
    behind = joints[sample, joint, 2] - to_depth(images)[sample, 0, y, x]  # of the joint, behind what is seen
    radius = radii[sample, joint]
    assert (behind > 0.5 * radius - 1).all()
    visible = behind < 1.3 * radius + 1
    assert 0.4 < visible.mean() < 0.95
    assert np.abs(behind - radius)[visible].mean() < 2.0


def test_fingers_bend_as_the_skeleton_says() -> None:
    """Closed form: a finger bent by a right angle at the knuckle points out of the palm."""
    one, zero = np.ones(1), np.zeros((1, 4))
    shape = skeleton.Shape(one, np.ones((1, 5)), one, 50 * one)
    for flexion, direction in ((0.0, None), (np.pi / 2, [0, 0, 1])):
        pose = skeleton.Pose(zero + flexion, zero, -skeleton.FAN[None], np.zeros(1), np.zeros((1, 3)))
        points = skeleton.assemble(shape, pose).points[0]
        for finger in range(4):
            knuckle, tip = points[5 * finger + 1], points[5 * finger + 4]
            expected = np.array(direction or [0, 1, 0]) * skeleton.PHALANGES[finger].sum()
            assert np.allclose(tip - knuckle, expected)
    thumb = points[skeleton.THUMB : skeleton.FOREARM]
    assert np.allclose(np.linalg.norm(np.diff(thumb, axis=0), axis=1), skeleton.THUMB_BONES)


def test_poses_stay_within_the_ranges_of_motion() -> None:
    for domain in DOMAINS:
        hands, view = place(drawn_factors(16, 0, "train", domain, range(300))[0], POPULATIONS[domain], 16)
        fingers = hands.points[:, : skeleton.THUMB].reshape(300, 4, 5, 3)
        bones = np.diff(fingers, axis=2)
        bones /= np.linalg.norm(bones, axis=-1, keepdims=True)
        bends = np.degrees(np.arccos((bones[:, :, 1:-1] * bones[:, :, 2:]).sum(-1).clip(-1, 1)))
        assert bends[..., 0].max() <= 105.001 and bends[..., 0].max() > 80
        assert np.allclose(bends[..., 1], bends[..., 0] * 2 / 3, atol=1e-3)
        assert np.abs(hands.points[:, skeleton.JOINTS].mean(1) - view.centres).max() <= 10
        assert (view.centres[:, 2] > 600).all() and (view.centres[:, 2] < 900).all()


def test_the_camera_frays_edges_and_leaves_holes_in_the_same_hands() -> None:
    numbers, noise = drawn_factors(64, 0, "train", "camera", range(60))
    hands, view = place(numbers, POPULATIONS["camera"], 64)
    clean = render(view, hands.points, hands.radii, skeleton.BONES, hands.axes)
    seen = sense(clean, view.centres[:, 2], view.focal, together(noise))

    def border(depth: np.ndarray) -> int:
        mask = np.abs(depth) <= 150
        return int((mask[:, 1:] != mask[:, :-1]).sum() + (mask[:, :, 1:] != mask[:, :, :-1]).sum())

    assert border(seen) > 1.1 * border(clean)
    covered = np.abs(clean) <= 150
    lost = (covered & ~(np.abs(seen) <= 150)).sum() / covered.sum()
    assert 0.02 < lost < 0.2
    kept = covered & (np.abs(seen) <= 150)
    assert np.median(np.abs(seen[kept] - clean[kept])) < 3  # mm


def test_both_domains_show_hands_of_the_same_shapes_and_poses_but_never_the_same_hand() -> None:
    """By the size of every digit and the place of every joint around the hand's centre, over 1,500 hands."""
    shapes, poses = [], []
    for domain in DOMAINS:
        hands, _ = place(drawn_factors(8, 0, "train", domain, range(1500))[0], POPULATIONS[domain], 8)
        joints = hands.points[:, skeleton.JOINTS]
        poses.append(joints - joints.mean(1, keepdims=True))
        shapes.append(hands.radii)
    for one, other in (shapes, poses):
        assert np.allclose(one.std(0), other.std(0), rtol=0.1)
        assert (np.abs(one.mean(0) - other.mean(0)) < 0.2 * one.std(0)).all()
    assert np.abs(poses[0] - poses[1]).max((1, 2)).min() > 1  # mm


def test_grey_and_depth_are_inverse_to_half_a_level() -> None:
    depth = np.linspace(-150, 150, 1001)
    assert np.abs(to_depth(to_grey(depth)) - depth).max() <= 150 / 254 + 1e-4
    ends = to_grey(np.array([-200.0, -150.0, 150.0, 150.5, np.inf, np.nan]))
    assert ends.tolist() == [255, 255, 1, 0, 0, 0] and np.isinf(to_depth(np.zeros(1, np.uint8)))


def test_a_step_in_depth_casts_a_shadow_as_wide_as_the_difference_of_disparities() -> None:
    near, far, focal = 600.0, 900.0, 590.0
    depth = np.full((1, 1, 200), far - 750)
    depth[..., 100:140] = near - 750
    dark = np.flatnonzero(shadow(depth, np.array([750.0]), np.array([focal]))[0, 0])
    expected = focal * 75 * (1 / near - 1 / far) - 0.5  # half a pixel of it is tolerated
    assert len(dark) == pytest.approx(expected, abs=1) and dark.max() == 99  # to the left of what casts it


def test_depth_is_read_in_steps_that_grow_with_its_square() -> None:
    for depth in (500.0, 1000.0, 2000.0):
        found = np.unique(quantise(np.linspace(depth * 0.98, depth * 1.02, 20_000)))
        step = np.diff(found)[len(found) // 2 - 1]
        assert step == pytest.approx(depth**2 / (588.235 * 75 * 8), rel=0.03)


def test_the_slope_of_a_plane_is_its_tangent_and_an_edge_is_not_steep() -> None:
    plane = np.tile(np.arange(20.0) * 3, (1, 20, 1))
    found = slope(plane, np.array([750.0]), np.array([250.0]))  # 3 mm a pixel
    assert np.allclose(found[0, 1:-1, 1:-1], 1)
    step = np.zeros((1, 9, 9))
    step[..., 5:] = 100
    assert (slope(step, np.array([750.0]), np.array([250.0]))[0, 1:-1, 1:-1] == 0).all()


def test_the_camera_adds_the_axial_noise_it_states_on_a_wall() -> None:
    noise = together([draw_noise(np.random.default_rng(i), 32) for i in range(40)])
    for distance in (500.0, 1500.0):
        wall, away = np.zeros((40, 32, 32), np.float32), np.full(40, distance)
        seen = sense(wall, away, np.full(40, 300.0), noise)
        measured = seen[np.isfinite(seen)]
        expected = np.hypot(1.2 + 1.9 * (distance / 1000 - 0.4) ** 2, distance**2 / (588.235 * 75 * 8) / np.sqrt(12))
        assert np.isfinite(seen).mean() > 0.95 and measured.std() == pytest.approx(expected, rel=0.2)
