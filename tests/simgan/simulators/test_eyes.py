from pathlib import Path

import numpy as np
import pytest

from cluster_jobs.data.shards import Shards
from simgan.pack import SyntheticPackConfig, main
from simgan.simulators.eye_camera import _detail, photograph
from simgan.simulators.eye_factors import CAMERA, SIMULATOR, Factors
from simgan.simulators.eye_geometry import Geometry, iris_outline, locate, turn
from simgan.simulators.eye_painting import CORNEA, LID_DEPTH, _lids, paint
from simgan.simulators.eyes import BLOCK, DOMAINS, Eyes, draw

HEIGHT, WIDTH = 35, 55


def plain(count: int, **values: float | list[float] | np.ndarray) -> Factors:
    """Eyes of a dark plain iris on an evenly lit white sclera, level and straight unless told."""
    even = {"sclera": 1, "ambient": 1, "iris": 0.05, "iris_texture": 0, "limbus": 0, "highlight": 0}
    straight = dict.fromkeys(("eye_pitch", "eye_yaw", "head_pitch", "head_yaw", "roll", "shift_x", "shift_y"), 0)
    middle = {name: sum(limits) / 2 for name, limits in SIMULATOR.items()}
    chosen = middle | even | straight | values
    return {name: np.broadcast_to(np.asarray(value, np.float32), count) for name, value in chosen.items()}


def darkness(factors: Factors, scale: int = 4) -> tuple[np.ndarray, Geometry]:
    """How much of each pixel the iris covers, read off a large picture without lids by its tone alone."""
    geometry = locate(factors, HEIGHT * scale, WIDTH * scale)
    tone = paint(factors, geometry, HEIGHT * scale, WIDTH * scale, lids=False).tone
    return (tone < 0.35).astype(np.float64), geometry


def moments(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre (x, y) and covariance of a mask's pixels."""
    y, x = np.nonzero(mask)
    return np.array([x.mean(), y.mean()]), np.cov(np.stack([x, y]), bias=True)


def test_a_frontal_gaze_shows_a_circle_at_the_centre() -> None:
    geometry = locate(plain(1), HEIGHT, WIDTH)
    assert np.allclose(geometry.gaze, [[0, 0, 1]]) and np.allclose(geometry.pupil, [[27, 17]])
    radii = np.linalg.norm(iris_outline(geometry)[0] - [27, 17], axis=1)
    assert np.allclose(radii, geometry.iris)


@pytest.mark.parametrize("angle", [-20, 7, 25])
def test_the_iris_is_displaced_by_the_sine_and_squeezed_by_the_cosine(angle: float) -> None:
    turned = np.radians(angle)
    for name, axis, sign in (("eye_yaw", 0, 1), ("eye_pitch", 1, -1), ("head_yaw", 0, 1), ("head_pitch", 1, -1)):
        geometry = locate(plain(1, **{name: angle}), HEIGHT, WIDTH)
        depth = np.sqrt(geometry.radius**2 - geometry.iris**2)
        moved = (geometry.pupil - geometry.eyeball)[0]
        assert moved[axis] == pytest.approx(sign * depth[0] * np.sin(turned)) and moved[1 - axis] == pytest.approx(0)
        extent = np.ptp(iris_outline(geometry)[0], axis=0) / 2
        assert extent[axis] == pytest.approx(geometry.iris[0] * np.cos(turned))
        assert extent[1 - axis] == pytest.approx(geometry.iris[0])


def test_pupil_and_outline_agree_with_the_moments_of_the_picture() -> None:
    random = np.random.default_rng(0)
    names = ("eye_pitch", "eye_yaw", "head_pitch", "head_yaw", "roll", "scale", "shift_x", "shift_y", "iris_radius")
    factors = plain(12, **{name: random.uniform(*SIMULATOR[name], 12) for name in names})
    factors = {name: value * (0.6 if name.endswith("pitch") else 1) for name, value in factors.items()}
    masks, geometry = darkness(factors)
    for mask, pupil, outline in zip(masks, geometry.pupil, iris_outline(geometry), strict=True):
        centre, covariance = moments(mask)
        assert np.allclose(centre, pupil, atol=0.4)  # a tenth of a pixel of the stored size
        around = outline - pupil
        expected = around.T @ around / len(around) / 2  # of a filled ellipse: half of its edge's
        assert np.allclose(covariance, expected, atol=0.03 * expected.trace())


def test_the_dark_pupil_is_centred_where_the_annotation_says() -> None:
    yaw, pitch = np.array([-20, 0, 12, 25], np.float32), np.array([10, -8, 14, -12], np.float32)
    factors = plain(4, iris=0.6, eye_yaw=yaw, eye_pitch=pitch, pupil_radius=0.45)
    masks, geometry = darkness(factors)
    for mask, pupil, radius, towards in zip(masks, geometry.pupil, geometry.iris, geometry.gaze[:, 2], strict=True):
        assert np.allclose(moments(mask)[0], pupil, atol=0.4)
        assert mask.sum() == pytest.approx(np.pi * (0.45 * radius) ** 2 * towards, rel=0.08)  # an ellipse's area


@pytest.mark.parametrize("light", [(-0.5, 0.2), (0.4, 0.7)])
def test_the_highlight_stands_where_the_cornea_mirrors_the_light(light: tuple[float, float]) -> None:
    factors = plain(1, highlight=1, light_x=light[0], light_y=light[1], eye_yaw=8)
    geometry = locate(factors, HEIGHT * 4, WIDTH * 4)
    tones = [
        paint(factors | {"highlight": np.full(1, on)}, geometry, HEIGHT * 4, WIDTH * 4, lids=False).tone[0]
        for on in (0, 1)
    ]
    row, column = np.unravel_index(np.argmax(tones[1] - tones[0]), tones[0].shape)
    towards = np.array([*light, 1]) / np.linalg.norm([*light, 1])
    normal = (towards + [0, 0, 1]) / np.linalg.norm(towards + [0, 0, 1])
    offset = (CORNEA[0] * geometry.gaze[0] + CORNEA[1] * normal)[:2] * geometry.radius[0] * [1, -1]
    assert np.allclose([column, row], geometry.eyeball[0] + offset, atol=1.5)  # pixels of the larger picture


def test_a_photograph_leaves_the_iris_where_it_was_painted() -> None:
    extra = {name: low for name, (low, _) in CAMERA.items() if name not in SIMULATOR} | {"jpeg": 95, "exposure": 0.5}
    even = dict.fromkeys(("skin_texture", "veins", "gradient", "shadow", "vignette", "shot_noise"), 0.0)
    factors = plain(3, eye_yaw=np.array([-20, 5, 18]), eye_pitch=np.array([-8, 3, 9]), **(extra | even))
    geometry = locate(factors, HEIGHT, WIDTH)
    painting = paint(factors, geometry, HEIGHT, WIDTH, lids=False)
    taken = photograph(painting, factors, [np.random.default_rng(place) for place in range(3)])
    for image, pupil in zip(taken, geometry.pupil, strict=True):
        assert np.allclose(moments(image < 100)[0], pupil, atol=0.3)


def test_the_skin_takes_only_fine_detail_from_the_photographs() -> None:
    """The photographs' detail has no coarse part: means over 16 x 16 pixels are close to the overall mean, 0."""
    detail = np.stack([_detail((64, 64), np.random.default_rng(place)) for place in range(20)])
    coarse = detail.reshape(20, 4, 16, 4, 16).mean((2, 4))
    assert 0.7 < detail.std() < 1.3 and coarse.std() < 0.15


def test_the_gaze_is_the_axis_of_the_drawn_pupil() -> None:
    for annotation in draw("simulator", HEIGHT, WIDTH, 3, "train", range(20))[1]:
        gaze, factors = np.array(annotation["gaze"]), annotation["factors"]
        radius = factors["scale"] * WIDTH
        depth = radius * np.sqrt(1 - factors["iris_radius"] ** 2)
        eyeball = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]) + WIDTH * np.array(
            [factors["shift_x"], factors["shift_y"]]
        )
        moved = (np.array(annotation["pupil"]) - eyeball) / depth * [1, -1]
        assert np.allclose(moved, gaze[:2], atol=2e-3) and np.linalg.norm(gaze) == pytest.approx(1, abs=1e-5)
        assert len(annotation["iris"]) == 32


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (60, 99)])
@pytest.mark.parametrize("domain", DOMAINS)
def test_a_picture_is_a_function_of_seed_split_and_index_whatever_the_block(domain: str, size: tuple[int, int]) -> None:
    together, annotations = draw(domain, *size, 0, "train", range(40))
    for index in range(0, 40, 3):
        alone, annotation = draw(domain, *size, 0, "train", range(index, index + 1))
        assert np.array_equal(alone[0], together[index]) and annotation[0] == annotations[index]
    for other in ((domain, *size, 1, "train"), (domain, *size, 0, "test")):
        assert not np.array_equal(draw(*other, range(1))[0][0], together[0])


def test_reading_in_any_order_gives_the_same_pictures() -> None:
    source = Eyes(BLOCK + 3, HEIGHT, WIDTH, 0, "train")
    forwards = [source.read(index)[0] for index in range(len(source))]
    for index in (BLOCK + 2, 0, BLOCK, 5):
        assert np.array_equal(source.read(index)[0], forwards[index])


def test_the_lids_lie_in_a_plane_that_turns_with_the_head() -> None:
    factors = plain(1, head_pitch=9, head_yaw=-14, roll=5, lid_tilt=0)
    per = {name: value[:, None, None] for name, value in factors.items()}
    at = np.array([[0.7, -0.4], [-0.9, 0.3], [0.0, 0.0]])
    points = np.column_stack([at, np.full(3, LID_DEPTH)])
    shown = turn(points, *(np.radians(factors[name]) for name in ("head_pitch", "head_yaw", "roll")))
    lids = _lids(per, shown[None, None, :, 0], shown[None, None, :, 1])
    assert np.allclose(lids.right[0, 0], at[:, 0], atol=1e-6) and np.allclose(lids.up[0, 0], at[:, 1], atol=1e-6)


def test_the_lids_follow_the_gaze() -> None:
    factors = plain(3, eye_pitch=[-18, 0, 12])
    opening = paint(factors, locate(factors, HEIGHT, WIDTH), HEIGHT, WIDTH).opening.sum((1, 2))
    assert opening[0] < opening[1] < opening[2]


@pytest.mark.parametrize("domain", DOMAINS)
def test_other_sizes_scale_the_eye(domain: str) -> None:
    small, large = (draw(domain, *shape, 0, "train", range(3)) for shape in ((35, 55), (70, 110)))
    assert large[0].shape == (3, 1, 70, 110) and large[0].dtype == np.uint8
    for before, after in zip(small[1], large[1], strict=True):
        assert np.allclose(2 * np.array(before["pupil"]) + 0.5, after["pupil"], atol=0.01)
        assert before["gaze"] == after["gaze"]


def test_packed_shards_hold_what_is_drawn(tmp_path: Path) -> None:
    keys = {"count": 12, "test": 0.25, "seed": 2, "shard_samples": 5, "workers": 0}
    for domain in ("simulator", "camera"):
        words = [f"source=eyes domain={domain} out={tmp_path / domain}", *(f"{k}={v}" for k, v in keys.items())]
        assert main(" ".join(words).split()) == 0
        for split, count in (("train", 12), ("test", 3)):
            shards = Shards(tmp_path / domain / split)
            images, annotations = draw(domain, HEIGHT, WIDTH, 2, split, range(count))
            assert shards.count == count and shards.shape == (1, 35, 55)
            assert np.array_equal(shards.image(count - 1), images[-1])
            assert shards.annotation(count - 1) == annotations[-1]


def test_the_default_source_is_untouched() -> None:
    assert SyntheticPackConfig(out="x").source.name == "printed_digits"
