import pytest
import torch

from simgan.training.health import RefinerLimits, refiner_signals

LIMITS = RefinerLimits(min_d_loss=0.01, min_diversity=0.25)
WELL = {
    **{"loss/d": 0.5, "spread/d": 0.8, "loss/adversarial": 70.0, "diversity/refined": 0.4, "diversity/synthetic": 0.5},
    **{"skipped/d": 0.0, "skipped/r": 0.0},
}


def test_signals_are_those_of_a_naive_sum() -> None:
    torch.manual_seed(0)
    refined, synthetic = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    found = refiner_signals(refined, synthetic)
    differences = [abs(a - b) for a, b in zip(refined.flatten().tolist(), synthetic.flatten().tolist(), strict=True)]
    assert found["change/pixel"].item() == pytest.approx(sum(differences) / 12, rel=1e-5)
    centred = [[value - sum(pixel) / 3 for value in pixel] for pixel in refined.flatten(1).T.tolist()]
    spread = (sum(value**2 for pixel in centred for value in pixel) / 12) ** 0.5
    assert found["diversity/refined"].item() == pytest.approx(spread, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"loss/d": 0.002}, "D has won: loss/d 0.002"),
        ({"spread/d": 1e-6}, "D gives every patch the same score"),
        ({"diversity/refined": 0.05}, "refined images vary 0.1 times as much"),
        ({"skipped/r": 0.7}, "70% of the steps of R"),
    ],
)
def test_what_is_wrong_is_said_in_words(change: dict[str, float], problem: str) -> None:
    found = LIMITS.problem(WELL | change)
    assert found is not None and found.startswith(problem) and bool(found) == bool(problem)


def test_means_that_cannot_tell_say_nothing_of_either_kind() -> None:
    assert LIMITS.problem(WELL | {"loss/d": float("nan")}) is None
    only_r = {name: value for name, value in WELL.items() if not name.endswith("/d")}
    assert LIMITS.problem(only_r) is None  # a long round of R, in which D may be winning
    warm_up = {name: value for name, value in only_r.items() if name != "loss/adversarial"}
    assert LIMITS.problem(warm_up) == ""
    assert LIMITS.problem(WELL | {"diversity/refined": 0.0, "diversity/synthetic": 0.0}) == ""
