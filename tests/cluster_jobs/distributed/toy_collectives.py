"""What one rank sees of the collectives, written to ``out/RANK.json``: a script for two real processes."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from cluster_jobs.cli.config import MISSING, CommandKeys, command, option
from cluster_jobs.core.files import write_json
from cluster_jobs.distributed.job import Job


@dataclass
class Toy(CommandKeys):
    """Calls every collective once."""

    out: str = option(MISSING, "where to write", path=True)


WEIGHTS = [[0.5, -1.0], [2.0, 0.25], [1.0, 1.5]]


def pairwise_losses(mine: torch.Tensor, all_: torch.Tensor) -> torch.Tensor:
    """A loss (n,) of features (n, F) that depends on the features (m, F) of all ranks, and on their order."""
    return (mine @ all_.T * torch.arange(1.0, len(all_) + 1)).logsumexp(1)


@command(Toy, conf="cluster_jobs.conf")
def main(config: Toy) -> None:
    job = Job.open(config)
    rank = job.rank
    before = torch.tensor([1.0 + rank, 10.0])
    summed = job.reduce(before)
    leaf = torch.tensor([1.0 + rank, 2.0], requires_grad=True)
    total = job.reduce(leaf.square())
    ((rank + 1) * total).sum().backward()
    assert leaf.grad is not None
    weights = torch.tensor(WEIGHTS, requires_grad=True)
    features = (torch.arange(6.0).reshape(2, 3) + rank) / 10 @ weights
    joined = job.gather_with_gradients(features)
    pairwise_losses(features, joined).mean().backward()
    assert weights.grad is not None
    averaged = job.reduce(weights.grad) / job.world
    job.barrier()
    job.say(f"said by {rank}")
    write_json(
        Path(config.out) / f"{rank}.json",
        {
            "place": [job.rank, job.world, job.is_main, job.device.type, torch.get_num_threads()],
            "uneven": job.gather(torch.arange(3 * rank).reshape(-1, 1) + 100 * rank).tolist(),
            "swapped": job.gather(torch.full((2 - rank, 2), 1.5 + rank)).tolist(),
            "flags": job.gather(torch.tensor([True, False][: rank + 1])).tolist(),
            "empty": list(job.gather(torch.zeros(0, 4)).shape),
            "summed": summed.tolist(),
            "unchanged": before.tolist(),
            "total": total.tolist(),
            "gradient": leaf.grad.tolist(),
            "joined": joined.tolist(),
            "averaged": averaged.tolist(),
            "tracked": list(job.track(range(3), 6, "images", "counting", weight=2)),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
