"""The order of the training loop, seen from a training that notes every call."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from cluster_jobs.training.loop import Attempt, fit
from cluster_jobs.training.rollback import NoRollback
from cluster_jobs.training.run import CheckpointScore
from tests.cluster_jobs.toy_train import ToyTrain

CALLS = list[tuple[Any, ...]]


class NotingRun:
    """A run that does nothing but note what is asked of it; every log line is due."""

    is_main = True
    samples_dir = Path("samples")

    def __init__(self, config: ToyTrain, calls: CALLS, stop_at: int = -1) -> None:
        self.config, self.calls, self.stop_at, self.nimg = config, calls, stop_at, 0

    def resume(self, state: Mapping[str, Any], optional: Mapping[str, Any]) -> int:
        self.calls.append(("resume", sorted(state), sorted(optional)))
        return 0

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        return batches

    def due(self, cadence: int, nimg: int) -> bool:
        return nimg % cadence == 0

    def log(self, nimg: int, values: Mapping[str, Any]) -> dict[str, float]:
        self.calls.append(("log", nimg))
        self.nimg = nimg
        return {}

    def save(self, state: Mapping[str, Any], nimg: int, score: CheckpointScore | None = None) -> None:
        self.calls.append(("save", nimg, score and score.value))

    def should_stop(self) -> bool:
        self.calls.append(("should stop",))
        return self.nimg == self.stop_at

    def preempt(self, state: Mapping[str, Any], nimg: int) -> None:
        self.calls.append(("preempt", nimg))
        raise StopIteration

    def finish(self, state: Mapping[str, Any], nimg: int) -> None:
        self.calls.append(("finish", nimg))


class NotingTraining:
    def __init__(self, calls: CALLS) -> None:
        self.calls, self.state = calls, {"model": torch.nn.Linear(1, 1)}

    def batches(self, nimg: int, attempt: Attempt) -> Iterator[int]:
        self.calls.append(("batches", nimg, attempt.draws, attempt.lr_factor))
        return iter(range(100))

    def step(self, batch: int, nimg: int) -> dict[str, float]:
        self.calls.append(("step", nimg))
        return {}

    def logged(self, nimg: int, means: Mapping[str, float]) -> None:
        self.calls.append(("logged", nimg))

    def sample(self, path: Path) -> None:
        self.calls.append(("sample", path.name))

    def score(self, nimg: int) -> CheckpointScore:
        self.calls.append(("score", nimg))
        return CheckpointScore(0.5)


class GoesBackOnce(NoRollback):
    """Goes back to the start after the first step."""

    def __init__(self) -> None:
        self.times = 0

    def diverged(self, nimg: int, means: Mapping[str, float] | None) -> bool:
        return self.times == 0

    def go_back(self, state: Mapping[str, Any], nimg: int) -> int:
        self.times, self.draws, self.lr_factor = 1, "again", 0.5
        return 0


def config(**keys: int) -> ToyTrain:
    return ToyTrain(**({"batch": 4, "total_nimg": 8, "sample_nimg": 8, "eval_nimg": 8, "checkpoint_nimg": 100} | keys))


def test_a_step_is_logged_then_sampled_scored_saved_with_the_score_and_the_stop_is_asked_for_last() -> None:
    calls: CALLS = []
    assert fit(NotingRun(config(), calls), NotingTraining(calls), NoRollback()) == 8
    first = [("step", 0), ("log", 4), ("logged", 4), ("should stop",)]
    second = [("step", 4), ("log", 8), ("logged", 8), ("sample", "000000000008.png"), ("score", 8)]
    second += [("save", 8, 0.5), ("should stop",)]
    assert calls == [("resume", ["model"], []), ("batches", 0, "", 1.0), *first, *second, ("finish", 8)]


def test_a_rollback_comes_before_anything_of_the_step_is_kept_and_begins_again_with_other_draws() -> None:
    calls: CALLS = []
    everything = config(sample_nimg=4, eval_nimg=4, checkpoint_nimg=4, total_nimg=4)
    fit(NotingRun(everything, calls), NotingTraining(calls), GoesBackOnce())
    abandoned = [("batches", 0, "", 1.0), ("step", 0), ("log", 4), ("logged", 4)]
    assert calls[1 : 1 + len(abandoned) + 1] == [*abandoned, ("batches", 0, "again", 0.5)]
    assert calls[-3:] == [("save", 4, 0.5), ("should stop",), ("finish", 4)]


def test_a_run_that_is_finished_trains_no_step() -> None:
    calls: CALLS = []
    fit(NotingRun(config(total_nimg=0), calls), NotingTraining(calls), NoRollback())
    assert calls == [("resume", ["model"], []), ("finish", 0)]
