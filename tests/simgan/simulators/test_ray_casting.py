import numpy as np
import pytest

from simgan.simulators.ray_casting import View, render

SIZE = 41
NOWHERE = np.full((1, 3, 3), 1e-3) * np.eye(3)  # an ellipsoid that no ray meets


def view(centre: tuple[float, float, float] = (0, 0, 750), size: int = SIZE) -> View:
    return View(np.array([centre], float), 300.0, size)


def rays(seen: View) -> np.ndarray:
    """(size, size, 3), z = 1: the definition of a pinhole camera, by itself."""
    centre, focal = seen.centres[0], seen.focal[0]
    offset = (np.arange(seen.size) - (seen.size - 1) / 2) / focal
    x, y = np.meshgrid(offset + centre[0] / centre[2], offset + centre[1] / centre[2])
    return np.stack([x, y, np.ones_like(x)], -1)


def drawn(
    seen: View, balls: list[list[float]], radii: list[float], bones: tuple[tuple[int, int], ...] = ()
) -> np.ndarray:
    points = np.array([[*balls, [0.0, 0.0, 5000.0]]])
    return render(seen, points, np.array([radii], float), bones, NOWHERE)[0]


def test_a_ball_before_the_camera_is_a_disc_with_the_depth_of_its_front() -> None:
    seen = view()
    depth = drawn(seen, [[0, 0, 750]], [40])
    middle = SIZE // 2
    assert depth[middle, middle] == pytest.approx(-40, abs=1e-3)
    # a ray at angle a from the axis meets the ball while sin a <= r / z
    angle = np.arctan(np.hypot(*np.moveaxis(rays(seen), -1, 0)[:2]))
    assert np.array_equal(np.isfinite(depth), np.sin(angle) <= 40 / 750)
    # law of cosines for the nearer point at distance s: r² = s² + z² - 2 s z cos a
    inside = np.isfinite(depth)
    distance = 750 * np.cos(angle) - np.sqrt(np.maximum(40**2 - (750 * np.sin(angle)) ** 2, 0))
    assert np.allclose(depth[inside], (distance * np.cos(angle) - 750)[inside], atol=2e-3)


def test_a_cylinder_across_the_view_has_the_depth_of_a_circle_in_every_column() -> None:
    seen = view()
    depth = drawn(seen, [[-400, 0, 750], [400, 0, 750]], [30, 30], ((0, 1),))
    y = rays(seen)[:, 0, 1]
    root = 1 - (1 + y**2) * (1 - 30**2 / 750**2)  # of (t y)² + (t - z)² = r² over z²
    expected = np.where(root >= 0, 750 * (1 - np.sqrt(np.maximum(root, 0))) / (1 + y**2) - 750, np.inf)
    assert np.allclose(depth, expected[:, None], atol=2e-3)


@pytest.mark.parametrize("end", [[60, 20, 700], [10, -5, 660], [-30, 80, 790], [0, 0, 650]])
@pytest.mark.parametrize("radii", [(20, 20), (24, 9), (8, 30)])
def test_a_tapered_bone_is_the_union_of_all_balls_between_its_ends(end: list[float], radii: tuple[int, int]) -> None:
    seen = view((35, -20, 740))
    start = np.array([20.0, -40.0, 760.0])
    depth = drawn(seen, [start.tolist(), end], list(radii), ((0, 1),))
    shares = np.linspace(0, 1, 400)
    centres = start + shares[:, None] * (np.array(end, float) - start)
    radius = radii[0] + shares * (radii[1] - radii[0])
    directions = rays(seen)[:, :, None]
    along, squared = (directions * centres).sum(-1), (directions**2).sum(-1)
    inside = along**2 - squared * ((centres**2).sum(-1) - radius**2)
    naive = np.where(inside >= 0, (along - np.sqrt(np.maximum(inside, 0))) / squared, np.inf).min(-1) - 740
    both = np.isfinite(depth) & np.isfinite(naive)
    assert both.sum() > 10 and (np.isfinite(depth) != np.isfinite(naive)).sum() <= 2  # the naive union has gaps
    off = np.abs(depth[both] - naive[both])
    assert off.max() < 1.0 and off.mean() < 0.05


def test_an_ellipsoid_is_a_ball_that_is_stretched() -> None:
    seen = view(size=301)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    axes = turn * np.array([50.0, 30.0, 15.0])[:, None]
    centre = np.array([5.0, -10.0, 760.0])
    depth = render(seen, centre[None, None], np.zeros((1, 0)), (), axes[None])[0]
    hit = np.isfinite(depth)
    surface = rays(seen)[hit] * (depth[hit] + 750)[:, None] - centre
    assert hit.sum() > 100
    assert np.allclose((((surface @ turn.T) / [50, 30, 15]) ** 2).sum(-1), 1, atol=1e-3)
    around = np.random.default_rng(1).normal(size=(3000, 3))
    around = (around / np.linalg.norm(around, axis=1, keepdims=True) * [50, 30, 15]) @ turn + centre
    pixels = np.rint(seen.project(around[None])[0, :, :2]).astype(int)
    front = depth[pixels[:, 1], pixels[:, 0]]
    assert np.isfinite(front).mean() > 0.9 and np.mean(around[:, 2] - 750 > front - 8) > 0.9  # none lies before it


def test_a_bone_that_ends_in_a_ball_of_no_size_is_not_there() -> None:
    depth = drawn(view(), [[0, 0, 750], [60, 0, 750]], [20, 0], ((0, 1),))
    assert np.array_equal(depth, drawn(view(), [[0, 0, 750]], [20]))


def test_what_lies_outside_the_picture_is_not_drawn() -> None:
    for place in ([900.0, 0.0, 750.0], [0.0, -900.0, 750.0], [-900.0, 900.0, 750.0]):
        assert np.isinf(drawn(view(), [place], [40])).all()
    assert np.isfinite(drawn(view(), [[150, 150, 750]], [40])).any()


def test_a_projected_point_lies_on_the_ray_of_its_pixel() -> None:
    seen = view((40, -30, 700), 224)
    row, column = 180, 30
    point = rays(seen)[row, column] * 725
    assert np.allclose(seen.project(point[None, None])[0, 0], [column, row, 25])
