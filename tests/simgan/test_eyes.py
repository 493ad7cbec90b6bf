from pathlib import Path

import numpy as np
import pytest

from cluster_jobs.shards import Shards
from simgan.pack import PackConfig, main
from simgan.simulators.eye_factors import SIMULATOR, Factors
from simgan.simulators.eye_geometry import Geometry, iris_outline, locate
from simgan.simulators.eye_picture import paint
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


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_picture_is_a_function_of_seed_split_and_index_whatever_the_block(domain: str) -> None:
    together, annotations = draw(domain, HEIGHT, WIDTH, 0, "train", range(7))
    for index in range(7):
        alone, annotation = draw(domain, HEIGHT, WIDTH, 0, "train", range(index, index + 1))
        assert np.array_equal(alone[0], together[index]) and annotation[0] == annotations[index]
    for other in ((domain, HEIGHT, WIDTH, 1, "train"), (domain, HEIGHT, WIDTH, 0, "test")):
        assert not np.array_equal(draw(*other, range(1))[0][0], together[0])


def test_reading_in_any_order_gives_the_same_pictures() -> None:
    source = Eyes(BLOCK + 3, HEIGHT, WIDTH, 0, "train")
    forwards = [source.read(index)[0] for index in range(len(source))]
    for index in (BLOCK + 2, 0, BLOCK, 5):
        assert np.array_equal(source.read(index)[0], forwards[index])


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
    assert PackConfig(out="x").source.name == "printed_digits"
