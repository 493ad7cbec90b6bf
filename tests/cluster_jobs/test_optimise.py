import math

import pytest
import torch

from cluster_jobs.optimise import update


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_with_a_non_finite_gradient_is_skipped_and_counted(bad: float) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], 0.1, (0.0, 0.999), fused=True)
    assert update(optimizer, weight.sum()).item() == 0
    before = [weight.detach().clone(), *(value.clone() for value in optimizer.state[weight].values())]
    assert update(optimizer, (weight * torch.tensor([1.0, bad, 1.0])).sum()).item() == 1
    after = [weight.detach(), *optimizer.state[weight].values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert update(optimizer, weight.sum()).item() == 0
    assert not torch.equal(weight.detach(), before[0])
