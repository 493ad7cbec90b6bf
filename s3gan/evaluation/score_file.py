"""`scores.json`: the results of every task of an evaluation, draw by draw, and their means, which the report shows.

    {TASK: {"results": {SCORE: ...}, "draws": [{"inputs": {...}, "results": {SCORE: ...}}, ...]}}

A draw is one checkpoint with one sample seed. Its inputs are all that its results depend on, so that nothing that is
finished is computed again, also after a kill or when more draws are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster_jobs.core.files import read_json, write_json

Result = dict[str, Any]
Inputs = dict[str, Any]


class ScoreFile:
    """The results of the wanted draws: read where they are stored already, added as they come.

    Args:
        wanted: for each task the inputs of its draws. Stored draws beyond them are dropped, other tasks stay.
    """

    def __init__(self, path: Path, wanted: dict[str, list[Inputs]]) -> None:
        self.path, self.wanted = path, wanted
        self.stored: dict[str, Any] = read_json(path) if path.is_file() else {}
        self.results_of = {task: [self._stored(task, inputs) for inputs in draws] for task, draws in wanted.items()}

    def _stored(self, task: str, inputs: Inputs) -> Result | None:
        draws = self.stored.get(task, {}).get("draws", [])
        return next((draw["results"] for draw in draws if draw["inputs"] == inputs), None)

    def due(self, number: int) -> list[str]:
        """The tasks that want the draw of this number and do not have its results."""
        return [task for task, results in self.results_of.items() if number < len(results) and results[number] is None]

    def any_due(self) -> bool:
        return any(None in results for results in self.results_of.values())

    def add(self, task: str, number: int, results: Result) -> None:
        self.results_of[task][number] = results

    def results(self) -> dict[str, Result]:
        """What the report shows of each task that has results."""
        return {task: mean_of(draws) for task in self.results_of if (draws := self._draws(task))}

    def by_draw(self, tasks: Sequence[str]) -> list[dict[str, Any]]:
        """For each draw the identity of its `images`, its `scores` by name over the given tasks, and the reasons why it
        lacks a task, by task (`missing`)."""
        rows: list[dict[str, Any]] = []
        for task in tasks:
            for number, draw in enumerate(self._draws(task) if task in self.wanted else []):
                if number == len(rows):
                    rows.append({"images": draw["inputs"]["images"], "scores": {}, "missing": {}})
                if "n/a" in draw["results"]:
                    rows[number]["missing"][task] = draw["results"]["n/a"]
                    continue
                scored = {name: score for name, score in draw["results"].items() if "value" in score}
                rows[number]["scores"] |= scored
        return rows

    def write(self) -> None:
        means = self.results()
        tasks = {task: {"results": means[task], "draws": self._draws(task)} for task in means}
        write_json(self.path, self.stored | tasks)

    def _draws(self, task: str) -> list[dict[str, Any]]:
        both = zip(self.wanted[task], self.results_of[task], strict=True)
        return [{"inputs": inputs, "results": results} for inputs, results in both if results is not None]


def mean_of(draws: Sequence[dict[str, Any]]) -> Result:
    """The results of one draw, or of several their mean, score by score.

    A score then says with `draws` how many there are, and how much it moves: `sample_sd` is the standard deviation over
    the sample seeds of a checkpoint (over several checkpoints the root of the mean variance), `checkpoint_sd` that of
    the checkpoints' means.
    """
    first = draws[0]["results"]
    if len(draws) == 1:
        return first
    return {name: _mean_score(name, score, draws) for name, score in first.items()}


def _mean_score(name: str, first: Any, draws: Sequence[dict[str, Any]]) -> Any:
    if name.startswith("floor_") or not isinstance(first, dict) or "value" not in first:
        return first  # real images are the same in all draws; or it is not available
    having = [draw for draw in draws if name in draw["results"]]
    scores = [draw["results"][name] for draw in having]
    merged = {**first, "value": float(np.mean([score["value"] for score in scores])), "draws": len(scores)}
    if "per_class" in first:
        merged["per_class"] = [_mean(values) for values in zip(*(score["per_class"] for score in scores), strict=True)]
    groups: dict[str, list[float]] = {}
    for draw, score in zip(having, scores, strict=True):
        groups.setdefault(draw["inputs"]["images"].get("checkpoint", ""), []).append(score["value"])
    if all(len(values) > 1 for values in groups.values()):
        merged["sample_sd"] = float(np.sqrt(np.mean([np.var(values, ddof=1) for values in groups.values()])))
    if len(groups) > 1:
        merged["checkpoint_sd"] = float(np.std([np.mean(values) for values in groups.values()], ddof=1))
    return merged


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
