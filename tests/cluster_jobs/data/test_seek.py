"""The plan of a large data set costs little time and memory, wherever one begins in it: synthetic indices."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from cluster_jobs.data.stream import MOST_BLOCKS, Order
from tests.processes import ROOT

MEASURE = """
import json, resource, sys, time
import numpy as np
from cluster_jobs.data.stream import Order

samples, shards, size, position, window = *map(int, sys.argv[1:5]), sys.argv[5]
counts = np.full(shards, samples // shards)
np.argsort(np.arange(1000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.process_time()
order = Order(counts, counts * size, seed=0, window=window)
order.indices(np.arange(position, position + 256))
order.indices(np.arange(position + len(counts) * counts[0], position + len(counts) * counts[0] + 256))
seconds = time.process_time() - begin
print(json.dumps({"seconds": seconds, "mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}))
"""


def measure(samples: int, shards: int, size: int, position: int, window: str = "64") -> dict[str, float]:
    """CPU seconds and growth of resident memory (MB) of a new process that makes a plan and reads in two epochs."""
    words = [sys.executable, "-c", MEASURE, *map(str, (samples, shards, size, position)), window]
    return json.loads(subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("size", [3_000, 100_000])
@pytest.mark.parametrize("window", ["64", "all"])
def test_the_plan_of_twelve_million_samples_stays_under_200_mb(size: int, window: str) -> None:
    assert measure(12_000_000, 1_200, size, 10_000_000, window)["mb"] < 200


def test_position_ten_million_costs_what_position_0_costs() -> None:
    """A new plan each time, and the fastest of seven: what another process does on this machine is no part of it."""
    counts = np.full(1_200, 10_000)

    def seconds(position: int) -> float:
        order = Order(counts, counts * 100_000, seed=0)
        begin = time.process_time()
        order.indices(np.arange(position, position + 256))
        return time.process_time() - begin

    times = {position: min(seconds(position) for _ in range(7)) for position in (0, 10_000_000, 0, 10_000_000)}
    assert times[10_000_000] < 1.5 * times[0] + 0.005


@pytest.mark.slow
@pytest.mark.parametrize("size", [3_000, 100_000])
def test_a_thousand_million_samples_in_a_hundred_thousand_shards_have_a_plan(size: int) -> None:
    """Of 100 kB each they are 100 TB: blocks grow, so that the plan does not."""
    measured = measure(1_000_000_000, 100_000, size, 999_999_000)
    assert measured["mb"] < 300 and measured["seconds"] < 20


def test_blocks_of_more_data_than_anybody_has_still_hold_every_sample_once() -> None:
    counts = np.array([7, 3, 11])
    sizes = counts * MOST_BLOCKS * (4 << 20)  # a sample is 8 TiB
    assert sorted(Order(counts, sizes, seed=0).indices(np.arange(21)).tolist()) == list(range(21))
