"""Adversarial losses against their equations."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from s3gan.losses.adversarial import LOSSES, LossName, hinge_d, hinge_g

REAL, FAKE = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0]), torch.tensor([2.0, -0.25, 0.0, 1.5, -4.0])


def sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score))


Pair = Callable[[float, float], float]
EQUATIONS: dict[str, tuple[Pair, Pair]] = {  # the losses of D and of G for a real score r and a fake score f
    "hinge": (lambda r, f: max(0, 1 - r) + max(0, 1 + f), lambda r, f: -f),
    "minimax": (
        lambda r, f: -math.log(sigmoid(r)) - math.log(1 - sigmoid(f)),
        lambda r, f: math.log(1 - sigmoid(f)),
    ),
    "non_saturating": (
        lambda r, f: -math.log(sigmoid(r)) - math.log(1 - sigmoid(f)),
        lambda r, f: -math.log(sigmoid(f)),
    ),
    "logistic": (
        lambda r, f: math.log(1 + math.exp(-r)) + math.log(1 + math.exp(f)),
        lambda r, f: math.log(1 + math.exp(-f)),
    ),
    "least_squares": (lambda r, f: ((r - 1) ** 2 + (f + 1) ** 2) / 2, lambda r, f: f**2 / 2),
    "wasserstein": (lambda r, f: f - r, lambda r, f: -f),
    "relativistic": (lambda r, f: -math.log(sigmoid(r - f)), lambda r, f: -math.log(sigmoid(f - r))),
}


def generator_loss(name: str, real: Tensor, fake: Tensor) -> Tensor:
    """As a step calls it: real scores for a paired loss only."""
    return LOSSES[name].generator(fake, real if LOSSES[name].paired else None)


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_loss_is_its_equation(name: str) -> None:
    d_equation, g_equation = EQUATIONS[name]
    pairs = list(zip(REAL.tolist(), FAKE.tolist(), strict=True))
    torch.testing.assert_close(
        LOSSES[name].discriminator(REAL, FAKE), torch.tensor([d_equation(r, f) for r, f in pairs])
    )
    torch.testing.assert_close(generator_loss(name, REAL, FAKE), torch.tensor([g_equation(r, f) for r, f in pairs]))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_has_the_gradient_of_finite_differences(name: str) -> None:
    real, fake = (score.double().requires_grad_() for score in (REAL, FAKE))
    assert torch.autograd.gradcheck(LOSSES[name].discriminator, (real, fake))
    assert torch.autograd.gradcheck(lambda r, f: generator_loss(name, r, f), (real, fake))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_stays_finite_and_exact_for_scores_of_any_size(name: str) -> None:
    real = torch.tensor([-1e4, -200.0, 200.0, 1e4], requires_grad=True)
    fake = torch.tensor([1e4, 200.0, -200.0, -1e4], requires_grad=True)
    losses = torch.cat([LOSSES[name].discriminator(real, fake), generator_loss(name, real, fake)])
    losses.sum().backward()
    assert real.grad is not None and fake.grad is not None
    assert losses.isfinite().all() and real.grad.isfinite().all() and fake.grad.isfinite().all()
    if name in ("minimax", "non_saturating", "logistic"):  # a wrong answer costs its score, a right one nothing
        torch.testing.assert_close(LOSSES[name].discriminator(real, fake), torch.tensor([2e4, 400.0, 0.0, 0.0]))


@pytest.mark.parametrize("name", LOSSES)
def test_each_player_gains_from_the_score_that_it_wants(name: str) -> None:
    real, fake = torch.tensor([0.5], requires_grad=True), torch.tensor([-0.5], requires_grad=True)
    up_real, down_fake = torch.autograd.grad(LOSSES[name].discriminator(real, fake).sum(), (real, fake))
    (up_fake,) = torch.autograd.grad(generator_loss(name, real, fake).sum(), fake)
    assert up_real < 0 < down_fake and up_fake < 0


def test_a_generator_learns_from_a_hopeless_fake_unless_its_loss_is_minimax() -> None:
    slopes = {}
    for name in LOSSES:
        fake = torch.tensor([-20.0], requires_grad=True)
        (slope,) = torch.autograd.grad(generator_loss(name, torch.zeros(1), fake).sum(), fake)
        slopes[name] = abs(slope.item())
    assert slopes.pop("minimax") < 1e-6
    assert min(slopes.values()) > 0.9


def test_the_loss_names_are_those_of_the_table() -> None:
    expected = {"hinge", "minimax", "non_saturating", "logistic", "least_squares", "wasserstein", "relativistic"}
    assert {name.name for name in LossName} == expected == {loss.name for loss in LOSSES.values()}
    assert [name for name, loss in LOSSES.items() if loss.paired] == ["relativistic"]


def test_the_hinge_loss_punishes_scores_inside_the_margin_only() -> None:
    real, fake = torch.tensor([2.0, 1.0, 0.0, -1.0]), torch.tensor([-2.0, -1.0, 0.0, 3.0])
    assert hinge_d(real, fake).tolist() == [0.0, 0.0, 2.0, 6.0]
    assert hinge_g(fake).tolist() == [2.0, 1.0, 0.0, -3.0]
