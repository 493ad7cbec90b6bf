import pytest
import torch

from simgan.training.losses import adversarial_loss, discriminator_loss, self_regularisation
from simgan.training.published_lambda import equivalent_weight


def test_the_discriminator_loss_is_the_cross_entropy_of_equation_2_summed_over_patches() -> None:
    refined, real = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    probability_refined, probability_real = refined.sigmoid(), real.sigmoid()  # D: the probability of being refined
    on_refined, on_real = discriminator_loss(refined, real)
    torch.testing.assert_close(on_refined, -probability_refined.log().sum((1, 2)))
    torch.testing.assert_close(on_real, -(1 - probability_real).log().sum((1, 2)))


def test_the_refiner_is_rewarded_where_d_takes_a_patch_for_real() -> None:
    logits = torch.tensor([[[-9.0, -9.0]], [[9.0, -9.0]], [[9.0, 9.0]]])
    fooled, half, caught = adversarial_loss(logits).tolist()
    assert fooled == pytest.approx(0, abs=1e-3) and half == pytest.approx(9, abs=1e-3)
    assert caught == pytest.approx(18, abs=1e-3)


def test_one_logit_is_the_papers_softmax_over_two_maps() -> None:
    maps = torch.randn(5, 2, 3, 3)  # refined, real
    paper = -maps.log_softmax(1)[:, 1].sum((1, 2))  # -log(1 - D)
    torch.testing.assert_close(adversarial_loss(maps[:, 0] - maps[:, 1]), paper)


def test_self_regularisation_is_a_sum_over_pixels_and_channels_of_each_image() -> None:
    images = torch.zeros(2, 3, 4, 5)
    changed = images.clone()
    changed[1] += 0.5
    assert self_regularisation(changed, images).tolist() == [0.0, 0.5 * 3 * 4 * 5]


@pytest.mark.parametrize(
    ("weight", "adversarial", "change", "batch", "expected"),
    [
        (0.5, "sum", "sum", 512, 0.5),  # carpedm20
        (1e-4, "mean", "batch_sum", 512, 6.45),  # mjdietzx: refined images that equal their input
        (0.5, "mean", "mean", 512, 0.0327),  # daniel-merrick
    ],
)
def test_the_lambda_of_public_code_is_converted(
    weight: float, adversarial: str, change: str, batch: int, expected: float
) -> None:
    found = equivalent_weight(weight, patches=126, pixels=35 * 55, adversarial=adversarial, change=change, batch=batch)
    assert found == pytest.approx(expected, rel=2e-3)


def test_the_converted_lambda_gives_the_same_balance_of_gradients() -> None:
    refined = (torch.rand(4, 1, 6, 6) * 2 - 1).requires_grad_()
    synthetic, patch = torch.zeros(4, 1, 6, 6), torch.nn.functional.avg_pool2d
    ours = equivalent_weight(0.3, patches=9, pixels=36, adversarial="mean", change="mean")
    theirs = torch.nn.functional.softplus(patch(refined, 2)[:, 0]).mean() + 0.3 * (refined - synthetic).abs().mean()
    mine = adversarial_loss(patch(refined, 2)[:, 0]) + ours * self_regularisation(refined, synthetic)
    (their_gradient,) = torch.autograd.grad(theirs, refined)
    (my_gradient,) = torch.autograd.grad(mine.mean(), refined)
    torch.testing.assert_close(my_gradient, their_gradient * 9)  # one common factor: the number of patches


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="expected sum"):
        equivalent_weight(1.0, patches=1, pixels=1, adversarial="max", change="sum")
