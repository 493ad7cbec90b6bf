"""The draw of a label budget."""

import math
import re
from collections import Counter

import numpy as np
import pytest

from cluster_jobs.core.errors import UserError
from selfsup.labelling.budget import draw_budget


def draw(count: int, shares: list[float]) -> tuple[list[str], np.ndarray]:
    labels = np.random.RandomState(1).choice(len(shares), count, p=shares).astype(np.int32)
    return [f"{index // 100:06d}/{index:08d}" for index in range(count)], labels


def test_the_budget_takes_the_exact_ceiling_of_every_class() -> None:
    keys, labels = draw(900, [0.7, 0.25, 0.05])
    for fraction in (0.01, 0.07, 0.1, 0.2, 1.0):
        taken = Counter(labels[draw_budget(keys, labels, fraction, 0)].tolist())
        percent = round(fraction * 100)
        for label, size in Counter(labels.tolist()).items():
            assert taken[label] == -(-percent * size // 100), (fraction, label)


def test_seven_percent_of_a_hundred_is_seven() -> None:
    assert math.ceil(0.07 * 100) == 8  # what floating point would reveal
    assert len(draw_budget([f"000000/{index}" for index in range(100)], np.zeros(100, np.int32), 0.07, 0)) == 7


def test_the_budget_is_nested_in_a_larger_budget() -> None:
    keys, labels = draw(700, [0.5, 0.3, 0.2])
    budgets = [set(draw_budget(keys, labels, fraction, 3).tolist()) for fraction in (0.01, 0.1, 0.11, 0.5, 1.0)]
    assert all(smaller < larger for smaller, larger in zip(budgets, budgets[1:], strict=False))
    assert budgets[-1] == set(range(700))


def test_the_budget_depends_on_keys_and_seed_only() -> None:
    keys, labels = draw(400, [0.6, 0.4])
    chosen = {keys[index] for index in draw_budget(keys, labels, 0.1, 5)}
    order = np.random.RandomState(2).permutation(400)
    shuffled_keys = [keys[index] for index in order]
    assert {shuffled_keys[index] for index in draw_budget(shuffled_keys, labels[order], 0.1, 5)} == chosen
    assert {keys[index] for index in draw_budget(keys, labels, 0.1, 6)} != chosen


def test_the_budget_of_a_class_ignores_the_other_classes() -> None:
    keys, labels = draw(400, [0.5, 0.3, 0.2])
    chosen = draw_budget(keys, labels, 0.1, 0)
    merged_classes = np.where(labels == 2, 1, labels)
    again = draw_budget(keys, merged_classes, 0.1, 0)
    assert set(chosen[labels[chosen] == 0]) == set(again[merged_classes[again] == 0])


def test_samples_without_a_label_are_never_in_the_budget() -> None:
    keys, labels = draw(300, [0.5, 0.5])
    labels[::3] = -1
    chosen = draw_budget(keys, labels, 0.3, 0)
    assert (labels[chosen] >= 0).all() and (np.diff(chosen) > 0).all()


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match=re.escape(f"fraction={fraction}")):
        draw_budget(["000000/0"], np.zeros(1, np.int32), fraction, 0)
