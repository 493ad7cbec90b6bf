import torch
from torch import nn

from cluster_jobs.training.ema import Ema


def test_the_average_follows_the_formula_after_its_start() -> None:
    module = nn.BatchNorm1d(2)
    ema = Ema(module, decay=0.9, start_nimg=100)
    expected = torch.ones(2)
    for nimg, value in ((50, 3.0), (100, 5.0), (150, 7.0), (200, 2.0)):
        nn.init.constant_(module.weight, value)
        ema.update(module, nimg)
        expected = 0.9 * expected + 0.1 * value if nimg > 100 else torch.full((2,), value)
        torch.testing.assert_close(ema.average.weight.data, expected)


def test_buffers_are_copied_and_the_average_asks_for_no_gradient() -> None:
    module = nn.BatchNorm1d(2)
    ema = Ema(module, decay=0.9)
    module(torch.randn(8, 2) + 3)
    ema.update(module, 1)
    assert torch.equal(ema.average.running_mean, module.running_mean)
    assert ema.average.num_batches_tracked == 1
    assert not any(parameter.requires_grad for parameter in ema.average.parameters())


def test_the_average_survives_its_state_bit_by_bit() -> None:
    module = nn.Linear(3, 3)
    ema, other = Ema(module, decay=0.99), Ema(nn.Linear(3, 3), decay=0.99)
    nn.init.normal_(module.weight)
    ema.update(module, 1)
    other.average.load_state_dict(ema.average.state_dict())
    nn.init.normal_(module.weight)
    ema.update(module, 2)
    other.update(module, 2)
    assert torch.equal(ema.average.weight, other.average.weight)
