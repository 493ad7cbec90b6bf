"""How many eyes a second one core draws in blocks, and how much faster that is than one picture at a time.

python tests/benchmarks/bench_eyes.py [count]
"""

import sys
import time

from simgan.simulators.eyes import BLOCK, DOMAINS, draw


def seconds(domain: str, count: int, block: int) -> float:
    """Processor seconds for ``count`` pictures of 35 × 55."""
    begin = time.process_time()
    for first in range(0, count, block):
        draw(domain, 35, 55, 0, "train", range(first, min(first + block, count)))
    return time.process_time() - begin


def main(count: int = 1024) -> None:
    for domain in DOMAINS:
        seconds(domain, BLOCK, BLOCK)  # loads photographs and warms up
        blocks, single = seconds(domain, count, BLOCK), seconds(domain, count, 1)
        print(f"{domain}: {count / blocks:.0f} images/s, {single / blocks:.1f} times as fast as one at a time")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
