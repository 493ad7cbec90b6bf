"""Every task of the table keeps to the protocol: shapes, names, blocks of whole pictures."""

import pytest
import torch

from selfsup.encoders.resnet import build_encoder
from selfsup.pretext import TASKS
from selfsup.pretext.draws import Draws
from selfsup.pretext.protocol import Gather


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_views_losses_and_measures_for_every_picture(name: str) -> None:
    task = TASKS[name]()
    module = task.module(build_encoder("resnet8", 1, 2))
    views = task.views(torch.zeros(3, 1, 8, 8), Draws(3, slice(None), ("test",)), torch.zeros(3, dtype=torch.int64))
    assert all(len(view) % 3 == 0 for view in views)
    for step in task.steps(module):
        assert step.losses(step.network, views, Gather()).per_picture.shape == (3,)
    measures = task.measures(module.eval(), views)
    assert [measure.shape for measure in measures] == [(3,)] * len(task.measured) and task.score in task.measured


@pytest.mark.parametrize("name", TASKS)
def test_the_initial_weights_of_a_task_do_not_depend_on_the_global_random_state(name: str) -> None:
    weights = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        module = TASKS[name]().module(build_encoder("resnet8", 1, 2))
        weights.append(torch.cat([value.flatten() for value in module.state_dict().values()]))
    assert torch.equal(*weights)
