"""A training command small enough for tests: it learns to add pixels, through the real run, stream and checkpoints.

The environment makes it die: ``TOY_KILL_AT_NIMG=N`` after N images, ``TOY_KILL_AT_WRITE=N`` just before its N-th change
to the run directory (a file opened for writing, renamed or removed). ``TOY_HANG_AT_NIMG=N`` makes it hang instead,
``TOY_HANG_SECONDS=N`` for so long, after which it meets a lost connection; ``TOY_WAIT_AT_NIMG=N`` makes it wait until
``run.dir/go`` is there. ``TOY_KILL_RANK`` chooses the rank (0).
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cluster_jobs.cli.config import MISSING, TrainKeys, command, option
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Batch
from cluster_jobs.distributed.batch_split import contiguous
from cluster_jobs.training.loop import Attempt, fit
from cluster_jobs.training.rollback import NoRollback
from cluster_jobs.training.run import Run, Stateful

NAMES = ("KILL", "HANG", "WAIT")


@dataclass
class ToyTrain(TrainKeys):
    """Fits a linear map, and notes every index it saw in ``run.dir/order-RANK.txt``."""

    data: str = option(MISSING, "shards", path=True)
    rate: float = option(1e-3, "learning rate")
    step_seconds: float = option(0.0, "how long a step takes")


def on_this_rank(variable: str) -> int:
    """A number from the environment; 0 where there is none or it is meant for another rank."""
    chosen = os.environ.get("TOY_KILL_RANK", "0") == os.environ.get("RANK", "0")
    return int(os.environ.get(variable, "0")) if chosen else 0


def kill_at_write(directory: str, count: int) -> None:
    """Kills this process just before its ``count``-th change to files in ``directory``."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        changes = event in ("os.rename", "os.remove") or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if changes and str(arguments[0]).startswith(directory) and "order-" not in str(arguments[0]):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def hang() -> None:
    """Waits for ever, or until the connection is lost."""
    end = time.monotonic() + float(os.environ.get("TOY_HANG_SECONDS", "inf"))
    while time.monotonic() < end:
        time.sleep(0.2)
    raise RuntimeError("Connection closed by peer")


def wait_for(go: Path) -> None:
    while not go.exists():
        time.sleep(0.01)


class ToyTraining:
    """A linear map that learns to add pixels."""

    def __init__(self, run: Run[ToyTrain], shards: Shards) -> None:
        self.run, self.config, self.shards = run, run.config, shards
        torch.manual_seed(self.config.seed)
        self.model = torch.nn.Linear(shards.channels * shards.size**2, 1)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.config.rate, betas=(0.0, 0.999))
        self.prepared = run.prepare(self.model)

    @property
    def state(self) -> dict[str, Stateful]:
        return {"model": self.model, "optimizer": self.optimizer}

    def batches(self, nimg: int, attempt: Attempt) -> Iterator[Batch]:
        mine = contiguous(self.config.batch, self.run.rank, self.run.world)
        return self.run.stream(self.shards, mine=mine).batches(nimg)

    def step(self, batch: Batch, nimg: int) -> dict[str, torch.Tensor | float]:
        with open(self.run.dir / f"order-{self.run.rank}.txt", "a") as order:
            order.write(f"{batch.position} {' '.join(map(str, batch.indices.tolist()))}\n")
        images = batch.images.flatten(1).to(self.run.device).float() / 255
        loss = (self.prepared(images).squeeze(1) - images.sum(1)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        time.sleep(self.config.step_seconds)
        return {"loss": loss}

    def logged(self, nimg: int, means: Mapping[str, float]) -> None:
        pass

    def sample(self, path: Path) -> None:
        pass

    def score(self, nimg: int) -> None:
        return None


class Disturbances(NoRollback):
    """What the environment asks for, after a step was logged and before it is saved."""

    def __init__(self, run: Run[ToyTrain]) -> None:
        self.run, self.at = run, {name: on_this_rank(f"TOY_{name}_AT_NIMG") for name in NAMES}

    def diverged(self, nimg: int, means: Mapping[str, float] | None) -> bool:
        if nimg == self.at["KILL"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if nimg == self.at["HANG"]:
            hang()
        if nimg == self.at["WAIT"]:
            wait_for(self.run.dir / "go")
        return False


@command(ToyTrain, conf="cluster_jobs.conf")
def main(config: ToyTrain) -> None:
    shards = Shards(config.data)
    if config.validate:
        return
    if count := on_this_rank("TOY_KILL_AT_WRITE"):
        kill_at_write(config.run.dir, count)
    run = Run(config)
    fit(run, ToyTraining(run, shards), Disturbances(run))


if __name__ == "__main__":
    sys.exit(main())
