import numpy as np
import pytest
import torch

from cluster_jobs.cli.config import CommandKeys
from cluster_jobs.core.errors import UserError
from cluster_jobs.distributed.job import Job
from simgan.estimators.fit import Annotated, fit, initialise, predict
from simgan.estimators.hourglass import (
    CROP,
    HandProblem,
    Hourglass,
    Residual,
    StackedHourglass,
    decode,
    gaussians,
    heat_side,
    transformed,
)
from simgan.estimators.recipe import EstimatorRecipe
from simgan.simulators.hands import DepthHands
from simgan.tasks.hand import joints_of


def test_pictures_of_224_have_heat_maps_of_64_and_smaller_ones_smaller_ones() -> None:
    assert [heat_side(size) for size in (512, 224, 128, 64, 48, 32, 16)] == [64, 64, 64, 32, 16, 16, 8]
    with pytest.raises(UserError, match="12 × 12"):
        heat_side(12)


def test_the_papers_hourglass_has_two_stacks_of_64_cells_that_narrow_to_4() -> None:
    network = StackedHourglass(1, 224, 14, 1.0)
    sides: list[int] = []
    for part in network.modules():
        if isinstance(part, Residual):
            part.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    with torch.no_grad():
        maps = network.heat_maps(torch.zeros(1, 1, 224, 224))
    assert maps.shape == (1, 2, 14, 64, 64)
    assert sides[:3] == [128, 64, 64] and min(sides) == 4 and len(sides) == 3 + 2 * (4 * 3 + 1 + 1)
    convolutions = [tuple(part.weight.shape) for part in network.modules() if isinstance(part, torch.nn.Conv2d)]
    assert convolutions[0] == (64, 1, 7, 7) and (14, 256, 1, 1) in convolutions


def test_an_hourglass_counts_its_weights_in_closed_form() -> None:
    width, depth = 8, 3
    half = width // 2
    residual = (width * half + half) + (half * half * 9 + half) + (half * width + width) + 2 * (width + 2 * half)
    assert sum(weight.numel() for weight in Hourglass(width, depth).parameters()) == (3 * depth + 1) * residual


@pytest.mark.parametrize("size", [16, 32, 64])
def test_small_pictures_have_joints_in_their_own_pixels(size: int) -> None:
    network = StackedHourglass(1, size, 3, 0.03)
    images = torch.zeros(2, 1, size, size)
    assert network.train()(images).shape == (2, 2, 3, heat_side(size), heat_side(size))
    joints = network.eval()(images)
    assert joints.shape == (2, 3, 2) and (joints > -1).all() and (joints < size).all()


@pytest.mark.parametrize(("size", "heat"), [(224, 64), (64, 32), (48, 16)])
def test_decoded_gaussians_lie_within_a_quarter_of_a_cell_of_the_joint(size: int, heat: int) -> None:
    joints = torch.rand(50, 14, 2, generator=torch.Generator().manual_seed(0)) * (size * 0.9) + size * 0.05
    maps = gaussians(joints, size, heat)
    assert maps.max() <= 1 and maps.shape == (50, 14, heat, heat)
    off = (decode(maps, size) - joints).abs() * heat / size
    assert off.max() <= 0.25 + 1e-4
    # without the quarter it is half a cell
    place = maps.flatten(2).argmax(2)
    plain = (torch.stack([place % heat, place // heat], -1) + 0.5) * (size / heat) - 0.5
    assert ((plain - joints).abs() * heat / size).max() > 0.45


def test_heat_maps_begin_empty_and_learn_from_the_first_step_on() -> None:
    network, problem = StackedHourglass(1, 32, 2, 0.05), HandProblem(32, 2)
    initialise(network, 0)
    random = torch.Generator().manual_seed(0)
    images, joints = torch.rand(4, 1, 32, 32, generator=random), 32 * torch.rand(4, 2, 2, generator=random)
    maps = network(images)
    assert maps.abs().max() == 0
    weights = [weight for name, weight in network.named_parameters() if name.startswith("heads") and weight.ndim == 4]
    gradients = torch.autograd.grad(problem.loss(maps, joints).mean(), weights)
    assert len(gradients) == 2 and all(gradient.abs().max() > 0 for gradient in gradients)


def test_a_target_is_a_gaussian_of_one_cell_around_the_joint() -> None:
    maps = gaussians(torch.tensor([[[20.5, 10.5]]]), 64, 32)[0, 0]  # the middle of row 5, column 10
    for row, column in ((5, 10), (5, 11), (4, 10), (7, 9)):
        distance = (row - 5) ** 2 + (column - 10) ** 2
        assert float(maps[row, column]) == pytest.approx(np.exp(-distance / 2))


def test_rows_of_a_heat_map_are_y() -> None:
    maps = gaussians(torch.tensor([[[40.0, 10.0]]]), 64, 32)
    row, column = divmod(int(maps.flatten().argmax()), 32)
    assert row == pytest.approx(10.5 / 2 - 0.5, abs=0.5) and column == pytest.approx(40.5 / 2 - 0.5, abs=0.5)


def test_a_largest_cell_on_the_border_is_moved_inwards() -> None:
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 2, 7], maps[0, 0, 3, 0] = 1, 0.9  # neighbours in memory, not in the picture
    assert decode(maps, 8)[0, 0].tolist() == [6.75, 2]
    maps[0, 0, 0, 0] = 2
    assert decode(maps, 8)[0, 0].tolist() == [0.25, 0.25]


def test_joints_are_read_off_the_second_stack_which_builds_on_the_first() -> None:
    torch.manual_seed(0)
    network, images = StackedHourglass(1, 16, 2, 0.03).eval(), torch.rand(3, 1, 16, 16)
    first, second = network.heat_maps(images).unbind(1)
    assert torch.equal(network(images), decode(second, 16)) and not torch.equal(network(images), decode(first, 16))
    weights = [*network.hourglasses[0].parameters(), *network.heads[0].parameters()]
    assert all(gradient.any() for gradient in torch.autograd.grad(second.square().sum(), weights))


def test_the_loss_is_zero_for_the_gaussians_and_counts_both_stacks() -> None:
    problem = HandProblem(32, 2)
    joints = torch.tensor([[[10.0, 20.0], [5.0, 6.0]]])
    wanted = gaussians(joints, 32, 16)
    assert problem.loss(torch.stack([wanted, wanted], 1), joints).tolist() == [0.0]
    first = problem.loss(torch.stack([wanted + 0.1, wanted], 1), joints)
    second = problem.loss(torch.stack([wanted, wanted + 0.1], 1), joints)
    assert (
        first.shape == (1,)
        and torch.allclose(first, second)
        and float(first) == pytest.approx(16 * 16 * 0.01, rel=1e-4)
    )


def dots(joints: torch.Tensor, size: int) -> torch.Tensor:
    """A picture for each sample, black with a white square of 3 × 3 at its one joint."""
    images = torch.full((len(joints), 1, size, size), -1.0)
    for image, (x, y) in zip(images, joints[:, 0].round().long().tolist(), strict=True):
        image[0, y - 1 : y + 2, x - 1 : x + 2] = 1
    return images


def test_augmented_pictures_and_joints_move_together() -> None:
    random = torch.Generator().manual_seed(1)
    joints = torch.randint(12, 52, (200, 1, 2), generator=random).float()
    problem = HandProblem(64, 1)
    shown, told = problem.augment(dots(joints, 64), joints, random)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    weight = shown[:, 0] + 1
    found = torch.stack([(weight * axis).sum((1, 2)) for axis in (x, y)], 1) / weight.sum((1, 2))[:, None]
    assert (found - told[:, 0]).abs().max() < 0.8
    assert (told - joints).norm(dim=-1).mean() > 3 and set(shown.unique().tolist()) == {-1.0, 1.0}


def test_augmentation_turns_up_to_20_degrees_and_shows_at_least_85_percent_of_the_side() -> None:
    """Truth: the transform as three points that it takes elsewhere tell it."""
    size, middle = 64, 31.5
    corners = torch.tensor([[0.0, 0.0], [32.0, 0.0], [0.0, 32.0]]) + middle
    images = torch.zeros(1000, 1, size, size)
    _, told = HandProblem(size, 3).augment(images, corners.expand(1000, 3, 2), torch.Generator().manual_seed(0))
    across, down = told[:, 1] - told[:, 0], told[:, 2] - told[:, 0]
    angle = torch.rad2deg(torch.atan2(across[:, 1], across[:, 0]))
    shown = 32 / across.norm(dim=1)
    assert torch.allclose(down, torch.stack([-across[:, 1], across[:, 0]], 1), atol=1e-3)  # turned, not sheared
    assert -20 <= angle.min() < -19 and 19 < angle.max() <= 20
    assert CROP - 1e-5 <= shown.min() < 0.86 and 0.99 < shown.max() <= 1 + 1e-5
    seen = torch.stack([across, down], 2) / 32  # where the middle of what is shown lies: solve told = middle there
    centre = -torch.linalg.solve(seen, (told[:, 0] - middle)[..., None])[..., 0] / (size / 2)
    slack = (1 - shown)[:, None]
    assert (centre.abs() <= slack + 1e-5).all() and (centre / slack).abs().mean() == pytest.approx(0.5, abs=0.05)
    draws = torch.stack([angle, shown, *(centre / slack).T])
    assert (torch.corrcoef(draws) - torch.eye(4)).abs().max() < 0.1


def test_turning_is_clockwise_by_the_matrix_and_cropping_enlarges() -> None:
    joints = torch.tensor([[[40.0, 32.0]]])
    quarter = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    one, still = torch.ones(1), torch.zeros(1, 2)
    _, turned = transformed(dots(joints, 64), joints, quarter, one, still)
    assert turned[0, 0].tolist() == pytest.approx([32, 23])  # what was right of the middle, 31.5, is now above it
    _, larger = transformed(dots(joints, 64), joints, torch.eye(2)[None], one * CROP, still)
    assert larger[0, 0, 0].item() - 31.5 == pytest.approx(8.5 / CROP)


def test_augmenting_is_the_same_for_the_same_draws() -> None:
    joints = torch.full((3, 1, 2), 20.0)
    first, second = (
        HandProblem(32, 1).augment(dots(joints, 32), joints, torch.Generator().manual_seed(5)) for _ in "ab"
    )
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert np.isfinite(first[1].numpy()).all()


@pytest.mark.slow
def test_the_papers_hourglass_takes_a_step_on_a_hand_of_224_pixels() -> None:
    image, _, annotation = DepthHands(1, 224, 0, "train", "simulator").read(0)
    joints = joints_of([annotation], "here")
    recipe = EstimatorRecipe(width=1.0, steps=2, batch=1)
    job = Job.open(CommandKeys(threads=1))
    network = fit(HandProblem(224, 14), Annotated(image[None], joints), recipe, seed=0, job=job, what="x")
    assert predict(network, image[None], job.device, 1).shape == (1, 14, 2)
