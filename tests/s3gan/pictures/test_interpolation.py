import numpy as np
import pytest
import torch

from s3gan.inference.loading import load_generator
from s3gan.inference.sampling import draw_noise, make_images
from s3gan.pictures.interpolation import ROWS, STEPS, between_classes, between_noise, blends, slerp
from tests.s3gan.toy_run import make_run

NAMES = ["cat", "dog", "éléphant blanc"]


def noise(indices, truncation=0.0):
    return draw_noise(0, indices, 64, truncation)


def test_the_great_circle_has_both_ends_equal_norms_and_equal_angles():
    a = torch.tensor([3.0, 0, 0])
    b = torch.tensor([0, 3 * np.cos(0.5), 3 * np.sin(0.5)], dtype=torch.float32)
    path = slerp(a, b, 7)
    assert path.dtype == torch.float32
    torch.testing.assert_close(path[[0, -1]], torch.stack([a, b]), atol=1e-6, rtol=0)
    torch.testing.assert_close(path.norm(dim=1), torch.full((7,), 3.0))
    angles = torch.acos((path[1:] * path[:-1]).sum(1) / 9)
    torch.testing.assert_close(angles, torch.full((6,), np.pi / 12), atol=1e-4, rtol=0)


def test_norms_of_unequal_ends_are_those_of_the_plane_they_span():
    a, b = torch.tensor([2.0, 0]), torch.tensor([0, 1.0])
    middle = slerp(a, b, 3)[1]
    torch.testing.assert_close(middle, torch.tensor([2.0, 1.0]) * np.sin(np.pi / 4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_parallel_and_opposite_vectors_are_joined_by_a_line(factor):
    a = torch.tensor([1.0, 2.0, -1.0])
    path = slerp(a, factor * a, 5)
    torch.testing.assert_close(path, a * torch.linspace(1, factor, 5)[:, None])


def test_random_noise_keeps_its_length_on_the_circle_where_a_line_would_shorten_it():
    ends = noise([0, 1])
    middle, line = slerp(*ends, 3)[1], ends.mean(0)
    assert 0.9 < middle.norm() / ends.norm(dim=1).mean() < 1.1
    assert line.norm() / ends.norm(dim=1).mean() < 0.85


def test_blends_move_all_weight_from_one_class_to_the_other():
    weights = blends(2, 0, 5, 4)
    assert weights.tolist() == [[0, 0, 1, 0], [0.25, 0, 0.75, 0], [0.5, 0, 0.5, 0], [0.75, 0, 0.25, 0], [1, 0, 0, 0]]


def test_a_row_of_noise_begins_and_ends_with_the_samples_of_its_own_pair():
    scene = between_noise(noise, [2, 0], NAMES)
    assert scene.conditions.tolist() == [2] * STEPS + [0] * STEPS
    torch.testing.assert_close(scene.z[[0, STEPS - 1, STEPS, 2 * STEPS - 1]], noise(range(4)), atol=1e-6, rtol=1e-6)


def test_rows_of_classes_share_the_noise_and_join_at_their_ends():
    scene = between_classes(noise, [2, 0, 1], NAMES)
    assert scene.z.unique(dim=0).shape[0] == 1 and len(scene.z) == 2 * STEPS
    assert scene.conditions[[0, STEPS - 1, STEPS, -1]].argmax(1).tolist() == [2, 0, 0, 1]
    assert torch.equal(scene.conditions[STEPS - 1], scene.conditions[STEPS])
    torch.testing.assert_close(scene.conditions.sum(1), torch.ones(2 * STEPS))


def test_many_classes_give_no_more_rows_than_are_readable():
    names = [str(number) for number in range(30)]
    assert (
        len(between_noise(noise, range(30), names).z) == len(between_classes(noise, range(30), names).z) == ROWS * STEPS
    )


def test_the_ends_of_a_class_path_are_the_images_of_the_labels_and_its_middle_is_of_the_mean_vector(tmp_path):
    generator, _ = load_generator(make_run(tmp_path / "run", NAMES))
    z, cpu = noise([0]).repeat(3, 1), torch.device("cpu")
    path = make_images(generator, z, blends(0, 2, 3, 3), 20, cpu).astype(int)
    ends = make_images(generator, z[:2], torch.tensor([0, 2]), 20, cpu).astype(int)
    assert np.abs(path[[0, 2]] - ends).max() <= 1  # rounding
    with torch.no_grad():
        generator.embedding.weight[1] = generator.embedding.weight[[0, 2]].mean(0)
    middle = make_images(generator, z[:1], torch.tensor([1]), 20, cpu).astype(int)
    assert np.abs(path[[1]] - middle).max() <= 1
    assert np.abs(ends[0] - ends[1]).max() > 1
