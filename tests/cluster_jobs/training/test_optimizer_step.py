"""One optimizer step, whole and in micro-batches, against autograd on the undivided batch."""

import copy
import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from cluster_jobs.core.errors import UserError
from cluster_jobs.training.optimizer_step import Metrics, compile_errors_in_one_line, micro_batches, update


@pytest.fixture
def group_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))


class Inputs(NamedTuple):
    inputs: Tensor


def squares(module: nn.Module, batch: Inputs) -> tuple[Tensor, Metrics]:
    inputs = batch.inputs
    loss = module(inputs).square().mean()
    return loss, {"loss": loss, "inputs": inputs.mean()}


def step(module: nn.Module, parts: list[Inputs]) -> tuple[Metrics, Tensor]:
    optimizer = torch.optim.Adam(module.parameters(), 0.1, (0.0, 0.999), fused=True)
    return update(optimizer, module, parts, partial(squares, module))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_a_step_with_a_non_finite_micro_batch_is_skipped_and_counted(bad: float, place: int) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], 0.1, (0.0, 0.999), fused=True)
    one, poison = torch.ones(3), torch.tensor([1.0, bad, 1.0])

    def skipped(*scales: Tensor) -> float:
        parts = [Inputs(scale) for scale in scales]
        return update(optimizer, nn.Identity(), parts, lambda part: ((weight * part.inputs).sum(), {}))[1].item()

    assert skipped(one, one) == 0
    before = [weight.detach().clone(), *(value.clone() for value in optimizer.state[weight].values())]
    assert skipped(*([poison, one] if place == 0 else [one, poison])) == 1
    after = [weight.detach(), *optimizer.state[weight].values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert skipped(one, one) == 0
    assert not torch.equal(weight.detach(), before[0])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_micro_batches_give_the_gradient_and_the_metrics_of_the_whole_batch(count: int) -> None:
    network, inputs = make_network(), torch.randn(8, 3)
    whole = copy.deepcopy(network)
    squares(whole, Inputs(inputs))[0].backward()
    metrics, skipped = step(network, micro_batches(count, Inputs(inputs)))
    for mine, plain in zip(network.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, plain.grad)
    torch.testing.assert_close(metrics["inputs"], inputs.mean())
    assert skipped.item() == 0 and not metrics["loss"].requires_grad


def test_micro_batches_hold_every_sample_once_and_keep_blocks_and_ends() -> None:
    batch = torch.arange(12)
    parts = [part for (part,) in micro_batches(3, (batch,))]
    assert torch.equal(torch.cat(parts).sort().values, batch)
    assert all(set(part[-2:].tolist()) <= set(range(6, 12)) for part in parts)  # the last half stays the last half
    pictures, turns = torch.arange(4).repeat(3), torch.arange(3).repeat_interleave(4)  # three blocks of four
    for shown, turned in micro_batches(2, (pictures, turns)):
        assert torch.equal(turned, torch.arange(3).repeat_interleave(2))
        assert torch.equal(shown.view(3, 2), shown[:2].expand(3, 2))


@pytest.mark.parametrize("count", [1, 4])
def test_the_ranks_sum_their_gradients_once_a_step(count: int, group_of_one: None) -> None:
    network, reference, inputs = make_network(), make_network(), torch.randn(8, 3)
    prepared = nn.parallel.DistributedDataParallel(network)
    sums: list[int] = []

    def hook(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        sums.append(bucket.buffer().numel())
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    prepared.register_comm_hook(None, hook)
    step(prepared, micro_batches(count, Inputs(inputs)))
    step(reference, micro_batches(count, Inputs(inputs)))
    assert sums == [sum(parameter.numel() for parameter in network.parameters())]
    for mine, plain in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, plain.grad)


class Doubling(torch.nn.Module):
    """A network of its own class: torch leaves bare layers of its own uncompiled."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_what_a_compiler_raises_becomes_one_line_with_the_way_out() -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> None:
        raise RuntimeError("no compiler\non this machine")

    module = Doubling()
    module.compile(backend=backend)
    with pytest.raises(UserError) as caught, compile_errors_in_one_line():
        module(torch.ones(1))
    message = str(caught.value)
    assert message.startswith("compile=true: torch.compile failed") and "no compiler on this machine" in message
    assert message.endswith("compile=false trains without it") and "\n" not in message


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught, compile_errors_in_one_line():
        torch.nn.Linear(2, 1)(torch.ones(1, 3))
    assert not isinstance(caught.value, UserError)
