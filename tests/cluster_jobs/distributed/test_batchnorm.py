import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn

from cluster_jobs.cli.config import Precision
from cluster_jobs.cli.exit_record import leave
from cluster_jobs.distributed.batchnorm import BatchNorm, moments, synchronise
from cluster_jobs.distributed.job import Job, start_accelerator
from tests.processes import free_port


class FakeRanks:
    """Sums over "ranks" that are threads of one process, so that one autograd graph spans them all."""

    def __init__(self, world: int):
        self.barrier, self.parts, self.calls = Barrier(world), [torch.empty(0)] * world, [0] * world

    def reduce(self, rank: int):
        def summed(tensor: Tensor) -> Tensor:
            self.calls[rank] += 1
            self.parts[rank] = tensor
            self.barrier.wait()
            total = torch.stack(self.parts).sum(0)
            self.barrier.wait()
            return total

        return summed


def normalised_halves(layers: list[BatchNorm], halves: list[Tensor]) -> tuple[list[Tensor], FakeRanks]:
    ranks = FakeRanks(len(halves))
    for rank, layer in enumerate(layers):
        synchronise(nn.Sequential(layer), ranks.reduce(rank))
    with ThreadPoolExecutor(len(halves)) as pool:
        return list(pool.map(lambda layer, half: layer(half), layers, halves)), ranks


def test_two_ranks_equal_torch_batch_norm_on_the_whole_batch_with_gradients_and_running_statistics():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, 4, 4, generator=generator) * 2 + 1
    weight, bias = torch.randn(3, generator=generator), torch.randn(3, generator=generator)
    direction = torch.randn(7, 3, 4, 4, generator=generator)
    reference = nn.BatchNorm2d(3)
    layers = [BatchNorm(3), BatchNorm(3)]
    for layer in [reference, *layers]:
        layer.load_state_dict({"weight": weight, "bias": bias}, strict=False)
    whole, split = x.clone().requires_grad_(), x.clone().requires_grad_()

    (reference(whole) * direction).sum().backward()
    outputs, ranks = normalised_halves(layers, [split[:5], split[5:]])  # uneven halves: weighting by count matters
    (torch.cat(outputs) * direction).sum().backward()

    torch.testing.assert_close(torch.cat(outputs), reference(whole), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(split.grad, whole.grad, atol=1e-5, rtol=1e-5)
    assert ranks.calls == [1, 1]
    for name in ("weight", "bias"):
        total = sum(getattr(layer, name).grad for layer in layers)
        torch.testing.assert_close(total, getattr(reference, name).grad, atol=1e-4, rtol=1e-5)
    fresh = nn.BatchNorm2d(3)
    fresh(x)
    for layer in layers:
        torch.testing.assert_close(layer.running_mean, fresh.running_mean)
        torch.testing.assert_close(layer.running_var, fresh.running_var)


def test_one_process_equals_torch_in_training_and_in_evaluation():
    x = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1)) * 3 - 1
    reference, layer = nn.BatchNorm2d(4), BatchNorm(4)
    torch.testing.assert_close(layer(x), reference(x))
    torch.testing.assert_close(layer.running_var, reference.running_var)
    torch.testing.assert_close(layer.eval()(x), reference.eval()(x))


def test_a_rank_without_samples_takes_part_and_changes_nothing():
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(2))
    layers = [BatchNorm(2), BatchNorm(2)]
    outputs, _ = normalised_halves(layers, [x, x[:0]])
    torch.testing.assert_close(outputs[0], nn.BatchNorm1d(2)(x))
    assert outputs[1].shape == (0, 2)
    assert torch.equal(layers[0].running_mean, layers[1].running_mean)


def test_moments_are_those_of_numpy():
    x = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(3))
    mean, variance = moments(x.bfloat16())
    truth = x.bfloat16().float().numpy()
    torch.testing.assert_close(mean, torch.from_numpy(truth.mean((0, 2, 3))))
    torch.testing.assert_close(variance, torch.from_numpy(truth.var((0, 2, 3))))
    assert mean.dtype == variance.dtype == torch.float32


def test_a_non_finite_batch_leaves_no_trace_in_the_running_statistics():
    layer = BatchNorm(2)
    layer(torch.tensor([[0.0, 1.0], [float("inf"), 3.0]]))
    assert layer.running_mean.tolist() == [0.0, torch.tensor(0.2).item()]
    assert torch.isfinite(layer.running_var).all()


def _rank(rank: int, port: int, path: str) -> None:
    number = str(rank)
    os.environ.update(RANK=number, LOCAL_RANK=number, WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", ACCELERATE_USE_CPU="true")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    job = Job(start_accelerator(Precision.no))
    x = _gloo_input()[rank * 3 : rank * 3 + 3].requires_grad_()
    layer = BatchNorm(2)
    synchronise(layer, job.reduce)
    layer(x).pow(3).sum().backward()
    torch.save({"gradient": x.grad, "variance": layer.running_var}, f"{path}/{rank}.pt")
    job.barrier()
    leave(0)


def _gloo_input() -> Tensor:
    return torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(4))


def test_two_gloo_processes_equal_one_process(tmp_path):
    multiprocessing.spawn(_rank, (free_port(), str(tmp_path)), nprocs=2)
    x, reference = _gloo_input().requires_grad_(), nn.BatchNorm2d(2)
    reference(x).pow(3).sum().backward()
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    torch.testing.assert_close(torch.cat([r["gradient"] for r in results]), x.grad, atol=1e-5, rtol=1e-4)
    for result in results:
        torch.testing.assert_close(result["variance"], reference.running_var)
