import pytest
import torch
from torch import nn

from cluster_jobs.training.ema import Ema, half_life_decay


def test_the_average_follows_the_formula_and_a_decay_of_zero_copies() -> None:
    module = nn.BatchNorm1d(2)
    ema = Ema(module)
    expected = torch.ones(2)
    for decay, value in ((0.0, 3.0), (0.0, 5.0), (0.9, 7.0), (0.5, 2.0)):
        nn.init.constant_(module.weight, value)
        ema.update(module, decay)
        expected = decay * expected + (1 - decay) * value
        torch.testing.assert_close(ema.average.weight.data, expected)


def test_half_of_the_average_is_left_after_one_half_life() -> None:
    module = nn.Linear(1, 1)
    nn.init.constant_(module.weight, 0.0)
    ema = Ema(module)
    nn.init.constant_(module.weight, 1.0)
    for _ in range(4):
        ema.update(module, half_life_decay(100, 400))
    assert ema.average.weight.item() == pytest.approx(0.5)


def test_buffers_are_copied_and_the_average_asks_for_no_gradient() -> None:
    module = nn.BatchNorm1d(2)
    ema = Ema(module)
    module(torch.randn(8, 2) + 3)
    ema.update(module, 0.9)
    assert torch.equal(ema.average.running_mean, module.running_mean)
    assert ema.average.num_batches_tracked == 1
    assert not any(parameter.requires_grad for parameter in ema.average.parameters())


def test_statistics_are_averaged_where_that_is_asked_for_and_counters_are_copied() -> None:
    module = nn.BatchNorm1d(2)
    ema = Ema(module, buffers=True)
    module(torch.randn(8, 2) + 3)
    ema.update(module, 0.75)
    torch.testing.assert_close(ema.average.running_mean, 0.25 * module.running_mean)  # from zeros
    assert ema.average.num_batches_tracked == 1


def test_the_average_survives_its_state_bit_by_bit() -> None:
    module = nn.Linear(3, 3)
    ema, other = Ema(module), Ema(nn.Linear(3, 3))
    nn.init.normal_(module.weight)
    ema.update(module, 0.99)
    other.average.load_state_dict(ema.average.state_dict())
    nn.init.normal_(module.weight)
    ema.update(module, 0.99)
    other.update(module, 0.99)
    assert torch.equal(ema.average.weight, other.average.weight)
