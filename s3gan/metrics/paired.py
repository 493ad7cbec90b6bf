"""Statistics of repeated measurements: mean and spread over seeds, and the ratio to a reference seed by seed.

Two methods trained from one seed see the same images in the same order with the same noise, so that their scores are
compared in pairs. The ratio of a pair is taken to logarithms, where twice and half weigh the same; the interval is
Student's t interval of the mean logarithm (n - 1 degrees of freedom), taken back.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Better(Enum):
    """Which direction of a measure is good."""

    lower = "lower is better"
    higher = "higher is better"


@dataclass(frozen=True)
class Ratio:
    """A geometric mean of paired ratios with its interval; `low` and `high` are None where one pair says no spread."""

    value: float
    low: float | None
    high: float | None
    pairs: int

    def verdict(self, better: Better) -> str:
        """`better` or `worse` where the interval excludes 1, else `not resolved`; `one pair` where there is none."""
        if self.low is None or self.high is None:
            return "one pair"
        if self.low <= 1 <= self.high:
            return "not resolved"
        return "better" if (self.high < 1) == (better is Better.lower) else "worse"


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean of at least one value, and the sample standard deviation (n - 1); None for a single value."""
    assert values
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def paired_ratio(
    values: Mapping[int, float], reference: Mapping[int, float], confidence: float = CONFIDENCE
) -> Ratio | None:
    """The geometric mean of value / reference over the seeds that both have; None where there is no such seed.

    A value of 0 or less, or one that is not finite, has no logarithm: then there is no ratio either, None.

    Args:
        values, reference: by seed.
        confidence: of the interval, in (0, 1).
    """
    pairs = [(values[seed], reference[seed]) for seed in sorted(values.keys() & reference.keys())]
    if not pairs or not all(0 < number < math.inf for pair in pairs for number in pair):
        return None
    logs = [math.log(value / base) for value, base in pairs]
    mean, sd = mean_and_sd(logs)
    if sd is None:
        return Ratio(math.exp(mean), None, None, 1)
    half = float(stats.t.ppf((1 + confidence) / 2, len(logs) - 1)) * sd / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), len(logs))
