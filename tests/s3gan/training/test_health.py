"""Signals against naive sums, and the decision on made-up series of means."""

import math

import pytest
import torch

from cluster_jobs.training.rollback import HealthRecord
from s3gan.training.health import Limits, signals

LIMITS = Limits(min_d_loss=0.01, max_d_loss=100.0, min_diversity=0.25)
# means such as s3gan.train has logged on Fashion-MNIST, where it learnt, and where too large rates made it fail
WELL = {"loss/d": 1.7, "diversity/real": 0.51, "diversity/fake": 0.45, "diversity/scores": 0.6, "accuracy/d": 0.69}
COLLAPSED = {"loss/d": 1.8, "diversity/real": 0.51, "diversity/fake": 0.07, "diversity/scores": 0.5, "accuracy/d": 0.6}
DEAD = {"loss/d": 2.0, "diversity/real": 0.51, "diversity/fake": 0.31, "diversity/scores": 1e-7, "accuracy/d": 0.0}
FOOLED = {"loss/d": 6.8, "diversity/real": 0.51, "diversity/fake": 0.39, "diversity/scores": 2.3, "accuracy/d": 0.17}


def record(window: int = 300) -> HealthRecord:
    return HealthRecord(window, LIMITS, healthy=0)


def test_signals_are_those_of_a_naive_sum_over_images_and_pairs() -> None:
    torch.manual_seed(0)
    images, fakes, real, fake = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2), torch.randn(3), torch.randn(3)
    found = signals(images, fakes, real, fake)
    for name, part in (("real", images), ("fake", fakes)):
        centred = [[value - sum(pixel) / 3 for value in pixel] for pixel in part.flatten(1).T.tolist()]
        variance = sum(value**2 for pixel in centred for value in pixel) / 12
        assert found[f"diversity/{name}"].item() == pytest.approx(math.sqrt(variance), rel=1e-5)
    scores = [*real.tolist(), *fake.tolist()]
    mean = sum(scores) / 6
    spread = math.sqrt(sum((value - mean) ** 2 for value in scores) / 6)
    assert found["diversity/scores"].item() == pytest.approx(spread, rel=1e-5)
    right = sum(one > other for one in real.tolist() for other in fake.tolist())
    assert found["accuracy/d"].item() == pytest.approx(right / 9)


def test_signals_have_no_part_in_the_gradient() -> None:
    images, scores = (torch.randn(shape, requires_grad=True) for shape in ((4, 1, 2, 2), (4,)))
    assert not any(value.requires_grad for value in signals(images, images, scores, scores).values())


@pytest.mark.parametrize(
    ("means", "words"),
    [
        (WELL, ""),
        (WELL | {"loss/d": -3.0}, ""),  # a Wasserstein loss
        (WELL | {"skipped/d": 0.4, "skipped/g": 0.5}, ""),
        (WELL | {"skipped/g": 0.6, "loss/d": math.nan}, "60% of the steps of G"),
        (WELL | {"loss/d": 0.005}, "D has won"),
        (WELL | {"loss/d": 1e4}, "exploded"),
        (WELL | {"loss/d": -1e4}, "exploded"),
        (WELL | {"loss/d": math.inf, "skipped/d": 1.0}, "100% of the steps of D"),
        (COLLAPSED, "fakes vary 0.14 times as much as real images (min_diversity=0.25)"),
        (DEAD, "same score"),
        (FOOLED, "D takes fakes for real: the real image scores higher in 17% of the pairs"),
    ],
)
def test_the_problem_names_what_is_wrong(means: dict[str, float], words: str) -> None:
    problem = LIMITS.problem(means)
    assert problem is not None and words in problem and bool(words) == bool(problem)


def test_a_few_steps_that_are_not_finite_tell_nothing() -> None:
    assert LIMITS.problem(COLLAPSED | {"loss/d": math.nan, "skipped/d": 0.01}) is None


def test_limits_can_be_switched_off() -> None:
    none = Limits(min_d_loss=0.0, max_d_loss=math.inf, min_diversity=0.0)
    for means in (COLLAPSED, WELL | {"loss/d": 0.0}, WELL | {"loss/d": 1e9}):
        assert none.problem(means) == ""


def test_a_run_has_diverged_when_every_line_of_a_whole_window_has_a_problem() -> None:
    watched = record()
    assert not any(watched.observe(nimg, WELL) for nimg in (100, 200, 300))
    assert [watched.observe(nimg, COLLAPSED) for nimg in (400, 500, 600)] == [False, False, True]
    assert watched.problem.startswith("fakes vary")


def test_one_good_line_starts_the_window_anew_and_an_unreadable_one_does_not() -> None:
    watched = record()
    unreadable = COLLAPSED | {"loss/d": math.nan}
    lines = [COLLAPSED, COLLAPSED, WELL, FOOLED, unreadable, DEAD, unreadable, DEAD]
    verdicts = [watched.observe(100 * number, means) for number, means in enumerate(lines, start=1)]
    assert verdicts == [False] * 5 + [True, False, True]  # 600 is a window after 300


def test_a_run_that_diverges_from_the_start_is_found_too() -> None:
    watched = record()
    assert [watched.observe(nimg, DEAD) for nimg in (100, 200, 300)] == [False, False, True]
    assert watched.healthy == 0


def test_a_checkpoint_is_healthy_once_a_good_window_followed_it() -> None:
    watched = record()
    healthy = []
    for nimg in range(100, 1300, 100):
        watched.observe(nimg, WELL)
        if nimg % 200 == 0:
            watched.saved(nimg)
        healthy.append(watched.healthy)
    #  200 is proven at 500, then the next one, 600, at 900, and 1000 (saved after that) at 1300
    assert healthy == [0, 0, 0, 0, 200, 200, 200, 200, 600, 600, 600, 600]
    assert watched.needed == {600, 1000}


def test_a_checkpoint_that_a_problem_follows_within_the_window_is_never_healthy() -> None:
    watched = record()
    for nimg, means in ((100, WELL), (200, WELL), (300, COLLAPSED), (400, WELL), (500, WELL), (600, WELL)):
        watched.observe(nimg, means)
        if nimg in (100, 300):
            watched.saved(nimg)
    assert watched.healthy == 0 and watched.needed == {0}  # 100 was followed by a problem, 300 came with one
