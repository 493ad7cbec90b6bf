"""The usual run of the toy command, and what it leaves."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from cluster_jobs.training.checkpoint import load_state
from tests.processes import HANG_SECONDS

TOY = "tests.cluster_jobs.toy_train"
TOTAL, BATCH = 40, 4
KEYS = (f"batch={BATCH}", f"total_nimg={TOTAL}", "checkpoint_nimg=12", "log_nimg=8", "keep_best=0", "threads=1")
HOSTILE = """a b=é='q' "d" [1],{x},${y}"""


def final(run: Path, nimg: int = TOTAL) -> bytes:
    """The bytes of the last checkpoint's tensors: weights and optimizer."""
    return (run / "checkpoints" / f"{nimg:012d}.safetensors").read_bytes()


def record(run: Path) -> dict[str, str | int]:
    return json.loads((run / "exit.json").read_text())


def order(run: Path, rank: int = 0) -> dict[int, list[int]]:
    """What a rank saw at each position; a position seen in two lives must have shown the same samples."""
    seen: dict[int, list[int]] = {}
    for line in (run / f"order-{rank}.txt").read_text().splitlines():
        position, *indices = map(int, line.split())
        assert seen.setdefault(position, indices) == indices
    return seen


def assert_tidy(run: Path) -> None:
    """No partial file is left: no temporary names, and only whole checkpoints."""
    assert not [path for path in run.rglob(".*")]
    files = sorted((run / "checkpoints").iterdir())
    for tensors, manifest in zip(files[1::2], files[::2], strict=True):
        assert manifest == tensors.with_suffix(".json")
        load_state(tensors)


def wait_for(condition: Callable[[], bool], seconds: float = HANG_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
