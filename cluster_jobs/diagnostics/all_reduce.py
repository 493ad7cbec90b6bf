"""One rank of a bandwidth measurement; ``bandwidth.py`` starts them. Rank 0 prints the result as a line of JSON.

Usage: ``python -m cluster_jobs.diagnostics.all_reduce nccl|gloo MIB SECONDS TIMEOUT`` with MASTER_ADDR and
MASTER_PORT, and with rank and world from a launcher (RANK, LOCAL_RANK, WORLD_SIZE) or from srun.
"""

import json
import os
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from cluster_jobs.cli.exit_record import leave

WARM_UP = 3


def measure(backend: str, mib: float, seconds: float, timeout: float) -> None:
    """Sums a tensor over all ranks again and again for about ``seconds``, and checks the sum once."""
    environment = os.environ
    rank = int(environment.get("RANK") or environment["SLURM_PROCID"])
    world = int(environment.get("WORLD_SIZE") or environment["SLURM_NTASKS"])
    local = int(environment.get("LOCAL_RANK") or environment["SLURM_LOCALID"])
    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
    address = f"tcp://{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
    dist.init_process_group(
        backend, init_method=address, rank=rank, world_size=world, timeout=timedelta(seconds=timeout)
    )
    tensor = torch.full((int(mib * 2**20) // 4,), float(rank + 1), device=device)
    dist.all_reduce(tensor)
    correct = bool((tensor == world * (world + 1) / 2).all())
    tensor.zero_()
    repeats = torch.tensor([max(1.0, seconds / timed(tensor, WARM_UP))], device=device)
    dist.all_reduce(repeats, dist.ReduceOp.MIN)  # the same number on every rank
    elapsed = timed(tensor, int(repeats))
    if rank == 0:
        bus_bytes = tensor.nbytes * 2 * (world - 1) / world  # what each rank sends at least: see nccl-tests
        result = {"world": world, "correct": correct, "gigabytes_a_second": bus_bytes / elapsed / 1e9}
        print(json.dumps(result), flush=True)
    dist.destroy_process_group()


def timed(tensor: torch.Tensor, repeats: int) -> float:
    """Seconds that one all-reduce takes, on the average of ``repeats``."""
    begin = time.perf_counter()
    for _ in range(repeats):
        dist.all_reduce(tensor)
    if tensor.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) / repeats


if __name__ == "__main__":
    measure(sys.argv[1], *map(float, sys.argv[2:]))
    leave(0)
