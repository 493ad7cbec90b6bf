"""How many eyes a second one core draws in blocks, and how much faster that is than the plain ways.

    python tests/benchmarks/bench_eyes.py [count]

The plain ways: the same pictures one at a time; and one at a time, four times as large and averaged down, as is usual
where edges are not antialiased by their distance (the simulator's domain alone: a camera's noise is no drawing).
"""

import sys
import time
from collections.abc import Callable

import numpy as np

from simgan.simulators.eye_factors import draw_factors, generators
from simgan.simulators.eye_geometry import locate
from simgan.simulators.eye_painting import paint
from simgan.simulators.eyes import BLOCK, DOMAINS, draw

HEIGHT, WIDTH, LARGER = 35, 55, 4


def in_blocks(domain: str, count: int, block: int = BLOCK) -> None:
    for first in range(0, count, block):
        draw(domain, HEIGHT, WIDTH, 0, "train", range(first, min(first + block, count)))


def one_at_a_time(domain: str, count: int) -> None:
    in_blocks(domain, count, block=1)


def averaged_down(domain: str, count: int) -> None:
    for index in range(count):
        factors = draw_factors(domain, generators(domain, 0, "train", range(index, index + 1)))
        height, width = HEIGHT * LARGER, WIDTH * LARGER
        tone = paint(factors, locate(factors, height, width), height, width).tone
        small = tone.reshape(HEIGHT, LARGER, WIDTH, LARGER).mean((1, 3))
        np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)


def rate(way: Callable[[str, int], None], domain: str, count: int) -> float:
    """Pictures of 35 × 55 a processor second, the best of three goes."""
    way(domain, min(count, BLOCK))  # loads the photographs and warms up
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        way(domain, count)
        best = min(best, time.process_time() - begin)
    return count / best


def main(count: int = 1024) -> None:
    for domain in DOMAINS:
        fast, slow = rate(in_blocks, domain, count), rate(one_at_a_time, domain, count)
        print(f"{domain}: {fast:.0f} images/s, {fast / slow:.1f} times as fast as one at a time")
    fast, slow = rate(in_blocks, "simulator", count), rate(averaged_down, "simulator", count // 4)
    print(f"simulator: {fast / slow:.1f} times as fast as one at a time, averaged down from {LARGER} times the size")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
