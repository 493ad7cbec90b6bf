import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cluster_jobs.training.checkpoint import load_state, save_state
from s3gan.losses.penalties import (
    ScoreAverages,
    consistency,
    gradient_penalty,
    input_gradient,
    interpolate,
    lecam,
    orthogonality,
    orthogonality_of,
    squared_gradient,
)
from s3gan.networks.layers import Conv2d


def tiny_weights() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.double)
    return kernel.requires_grad_(), torch.randn(3, generator=generator, dtype=torch.double).requires_grad_()


def tiny_scores(images: Tensor, kernel: Tensor, last: Tensor) -> Tensor:
    """A smooth discriminator without batch norm."""
    return nn.functional.conv2d(images, kernel).tanh().sum((2, 3)) @ last


def tiny_images(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 2, 4, 4, generator=generator, dtype=torch.double).requires_grad_()


def test_the_input_gradient_is_that_of_finite_differences() -> None:
    images, weights = tiny_images(), tiny_weights()
    gradient = input_gradient(tiny_scores(images, *weights), images)
    step = torch.zeros_like(images)
    for place in [(0, 0, 0, 0), (0, 1, 2, 3), (1, 0, 3, 1)]:
        step.zero_()[place] = 1e-5
        with torch.no_grad():
            change = tiny_scores(images + step, *weights) - tiny_scores(images - step, *weights)
        assert change[1 - place[0]] == 0  # another image's score
        torch.testing.assert_close(gradient[place], change[place[0]] / 2e-5, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("penalty", [squared_gradient, gradient_penalty])
def test_a_gradient_penalty_moves_the_weights_as_finite_differences_say(penalty: Callable[[Tensor], Tensor]) -> None:
    images = tiny_images()

    def of_weights(kernel: Tensor, last: Tensor) -> Tensor:
        return penalty(input_gradient(tiny_scores(images, kernel, last), images))

    assert torch.autograd.gradcheck(of_weights, tiny_weights())  # a backward pass through a backward pass
    assert torch.autograd.gradgradcheck(of_weights, tiny_weights())


def test_a_linear_discriminator_has_the_gradient_penalties_of_its_weight() -> None:
    weight, images = torch.randn(12), torch.randn(3, 3, 2, 2, requires_grad=True)
    gradient = input_gradient(images.flatten(1) @ weight, images)
    norm = math.sqrt(sum(w * w for w in weight.tolist()))
    torch.testing.assert_close(squared_gradient(gradient), torch.full((3,), norm**2 / 2))
    torch.testing.assert_close(gradient_penalty(gradient), torch.full((3,), (norm - 1) ** 2))


def test_a_quadratic_discriminator_has_a_zero_centred_penalty_of_the_squared_image() -> None:
    images = torch.randn(4, 1, 3, 3, requires_grad=True)
    gradient = input_gradient(images.square().sum((1, 2, 3)) / 2, images)
    torch.testing.assert_close(squared_gradient(gradient), images.square().sum((1, 2, 3)) / 2)


def test_a_flat_discriminator_costs_one_and_has_a_finite_gradient() -> None:
    gradient = torch.zeros(2, 1, 2, 2, requires_grad=True)
    penalty = gradient_penalty(gradient)
    penalty.sum().backward()
    assert penalty.tolist() == [1.0, 1.0]
    assert gradient.grad is not None and gradient.grad.isfinite().all()


def test_interpolation_takes_each_image_its_own_share() -> None:
    real, fake = torch.full((3, 1, 2, 2), 8.0), torch.full((3, 1, 2, 2), 4.0)
    mixed = interpolate(real, fake, torch.tensor([0.0, 0.25, 0.75]))
    assert mixed[:, 0, 0, 0].tolist() == [4.0, 5.0, 7.0]
    assert mixed.shape == real.shape and torch.equal(mixed, mixed[:, :, :1, :1].expand_as(mixed))


def test_lecam_punishes_scores_that_leave_the_other_side() -> None:
    real, fake = torch.tensor([3.0, -2.0, 0.0]), torch.tensor([-2.0, 1.0, 4.0])
    # (real + 1)₊² + (2 - fake)₊²
    assert lecam(real, fake, torch.tensor(2.0), torch.tensor(-1.0)).tolist() == [16 + 16, 0 + 1, 1 + 0]


def test_lecam_has_the_gradient_of_finite_differences() -> None:
    real, fake = (torch.tensor(values, dtype=torch.double) for values in ([3.0, -2.0, 0.5], [-2.0, 1.0, 4.0]))
    averages = torch.tensor(2.0, dtype=torch.double), torch.tensor(-1.0, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda r, f: lecam(r, f, *averages), (real.requires_grad_(), fake.requires_grad_()))


def test_score_averages_weigh_the_past_and_begin_unbiased() -> None:
    averages = ScoreAverages(decay=0.9)
    means, seen = [3.0, -1.0, 5.0, 2.0], []
    for mean in means:
        averages.update(torch.tensor(mean), torch.tensor(-2 * mean))
        seen.append(mean)
        weights = [0.9**age for age in range(len(seen))]
        expected = sum(w * m for w, m in zip(weights, reversed(seen), strict=True)) / sum(weights)
        assert averages.real.item() == pytest.approx(expected, rel=1e-5)
        assert averages.fake.item() == pytest.approx(-2 * expected, rel=1e-5)


def test_a_step_that_is_not_finite_leaves_no_trace_in_the_averages() -> None:
    averages = ScoreAverages()
    averages.update(torch.tensor(1.0), torch.tensor(-1.0))
    before = {name: value.clone() for name, value in averages.state_dict().items()}
    averages.update(torch.tensor(torch.nan), torch.tensor(-3.0))
    averages.update(torch.tensor(2.0), torch.tensor(torch.inf))
    assert all(torch.equal(value, before[name]) for name, value in averages.state_dict().items())


def test_score_averages_go_on_from_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    whole, first, second = ScoreAverages(), ScoreAverages(), ScoreAverages()
    scores = torch.randn(6, 2)
    for real, fake in scores:
        whole.update(real, fake)
    for real, fake in scores[:3]:
        first.update(real, fake)
    save_state(tmp_path / "averages.safetensors", first.state_dict())
    second.load_state_dict(load_state(tmp_path / "averages.safetensors")[0])
    for real, fake in scores[3:]:
        second.update(real, fake)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in second.state_dict().items())


def test_consistency_is_the_squared_difference_and_pulls_both_scores() -> None:
    score, augmented = torch.tensor([1.0, -2.0], requires_grad=True), torch.tensor([3.0, -2.5], requires_grad=True)
    distance = consistency(score, augmented)
    distance.sum().backward()
    assert distance.tolist() == [4.0, 0.25]
    assert score.grad is not None and augmented.grad is not None
    assert score.grad.tolist() == [-4.0, 1.0] and augmented.grad.tolist() == [4.0, -1.0]


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 2, 3, 3), (20, 1, 2, 2)])
def test_orthogonality_adds_the_squared_products_of_different_filters(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, dtype=torch.double, requires_grad=True)
    filters = [row.flatten() for row in weight.detach()]
    products = [(a * b).sum() ** 2 for i, a in enumerate(filters) for j, b in enumerate(filters) if i != j]
    torch.testing.assert_close(orthogonality(weight).detach(), torch.stack(products).sum())
    assert torch.autograd.gradcheck(orthogonality, weight)


def test_orthogonal_filters_of_any_length_cost_nothing() -> None:
    weight = nn.init.orthogonal_(torch.empty(4, 2, 3, 3)) * torch.tensor([1.0, 2.0, 3.0, 0.5])[:, None, None, None]
    assert orthogonality(weight).item() < 1e-10
    with torch.autocast("cpu", torch.bfloat16):
        assert orthogonality(weight).item() < 1e-10  # in float32 all the same


def test_many_filters_of_few_dimensions_need_no_table_of_all_pairs() -> None:
    weight = torch.ones(300_000, 2, dtype=torch.double)  # a table would take 720 GB
    assert orthogonality(weight).item() == 300_000 * 299_999 * 4


def test_orthogonality_counts_convolutions_and_linear_layers_but_no_embedding_and_no_norm() -> None:
    down, up, linear = Conv2d(2, 3, 3, normalise=True), nn.ConvTranspose2d(3, 2, 4), nn.Linear(4, 2)
    module = nn.Sequential(down, up, linear, nn.Embedding(5, 3), nn.BatchNorm2d(2))
    filters = down.weight, up.weight.transpose(0, 1), linear.weight
    torch.testing.assert_close(orthogonality_of(module), sum(map(orthogonality, filters), torch.zeros(())))
