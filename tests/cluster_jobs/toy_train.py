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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cluster_jobs.cli.config import MISSING, TrainKeys, command, option
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.batch_split import contiguous
from cluster_jobs.training.run import Run, Stateful


@dataclass
class ToyTrain(TrainKeys):
    """Fits a linear map, and notes every index it saw in ``run.dir/order-RANK.txt``."""

    data: str = option(MISSING, "shards", path=True)
    rate: float = option(1e-3, "learning rate")
    step_seconds: float = option(0.0, "how long a step takes")


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


@command(ToyTrain, conf="cluster_jobs.conf")
def main(config: ToyTrain) -> None:
    shards = Shards(config.data)
    if config.validate:
        return
    chosen = os.environ.get("TOY_KILL_RANK", "0") == os.environ.get("RANK", "0")
    if chosen and "TOY_KILL_AT_WRITE" in os.environ:
        kill_at_write(config.run.dir, int(os.environ["TOY_KILL_AT_WRITE"]))
    kill_at_nimg = int(os.environ.get("TOY_KILL_AT_NIMG", "0")) if chosen else 0
    hang_at_nimg = int(os.environ.get("TOY_HANG_AT_NIMG", "0")) if chosen else 0
    wait_at_nimg = int(os.environ.get("TOY_WAIT_AT_NIMG", "0")) if chosen else 0
    run = Run(config)
    torch.manual_seed(config.seed)
    model = torch.nn.Linear(shards.channels * shards.size**2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.rate, betas=(0.0, 0.999))
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer}
    nimg = run.resume(parts)
    prepared = run.prepare(model)
    stream = run.stream(shards, mine=contiguous(config.batch, run.rank, run.world))
    for batch in run.timed(stream.batches(nimg)):
        if nimg >= config.total_nimg:
            break
        with open(run.dir / f"order-{run.rank}.txt", "a") as order:
            order.write(f"{batch.position} {' '.join(map(str, batch.indices.tolist()))}\n")
        images = batch.images.flatten(1).to(run.device).float() / 255
        loss = (prepared(images).squeeze(1) - images.sum(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        nimg += config.batch
        time.sleep(config.step_seconds)
        run.log(nimg, {"loss": loss})
        if nimg == kill_at_nimg:
            os.kill(os.getpid(), signal.SIGKILL)
        if nimg == hang_at_nimg:
            hang()
        if nimg == wait_at_nimg:
            wait_for(run.dir / "go")
        if run.due(config.checkpoint_nimg, nimg):
            run.save(parts, nimg)
        if run.should_stop():
            run.preempt(parts, nimg)
    run.finish(parts, nimg)


if __name__ == "__main__":
    sys.exit(main())
