"""Rollback: a run that has diverged returns to its last healthy checkpoint and continues with other random draws.

A training command defines divergence with `HealthLimits` on the means of metrics at the log cadence, which are equal on
all ranks. It may roll back a limited number of times. The number of rollbacks so far is part of the checkpoint that the
run returned to, and is written by one rename. A run that is killed before the rename makes the same decision again, one
that is killed after it continues from there: either way it ends with the weights of a run that was not killed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cluster_jobs.core.errors import UserError
from cluster_jobs.reporting.section import Section
from cluster_jobs.training.run import Run, Stateful


class HealthLimits(Protocol):
    """The bounds of metrics that a healthy run stays within."""

    def problem(self, means: Mapping[str, float]) -> str | None:
        """What is wrong with the means, in words; "" for nothing, None where they do not show it."""


# the names of `HealthRecord`'s fields in checkpoints; they stay as they are so that old runs can be resumed
FIELDS = {"last_ok": "well", "problem": "complaint", "healthy": "healthy", "candidate": "candidate"}


@dataclass
class HealthRecord:
    """What has been observed so far. All numbers are images seen; -1 stands for none.

    A checkpoint is healthy once a window of images after it passed without a problem; the run has diverged once it had
    problems for a whole window.
    """

    window: int
    limits: HealthLimits
    last_ok: int = 0  # at the last observation without a problem, or at the start
    problem: str = ""  # of the last observation
    healthy: int = -1  # newest healthy checkpoint
    candidate: int = -1  # the checkpoint that becomes healthy next, unless a problem comes up

    def observe(self, nimg: int, means: Mapping[str, float]) -> bool:
        """Records the means up to `nimg` images; returns whether the run has diverged."""
        problem = self.limits.problem(means)
        if problem is None:
            return False
        self.problem = problem
        if problem:
            self.candidate = -1
            return nimg - self.last_ok >= self.window
        self.last_ok = nimg
        if 0 <= self.candidate <= nimg - self.window:
            self.healthy, self.candidate = self.candidate, -1
        return False

    def saved(self, nimg: int) -> None:
        """Records that a checkpoint of `nimg` images is about to be saved."""
        if self.candidate < 0 and not self.problem:
            self.candidate = nimg

    @property
    def needed(self) -> frozenset[int]:
        """The checkpoints to keep."""
        return frozenset({self.healthy, self.candidate}) - {-1}


class NoRollback:
    """Stands in for a `Rollback` in trainings that watch no metric."""

    state: Mapping[str, Stateful] = {}
    draws = ""
    lr_factor = 1.0

    def begin(self, state: Mapping[str, Stateful], nimg: int) -> None:
        """Nothing begins."""

    def diverged(self, nimg: int, means: Mapping[str, float] | None) -> bool:
        """Never."""
        return False

    def go_back(self, state: Mapping[str, Stateful], nimg: int) -> int:
        """Never called, as nothing diverges."""
        raise AssertionError("a run without rollback has diverged")


class Rollback:
    """Watches a run's metrics and rolls it back. Every rank makes the same calls.

    Its state is part of checkpoints, by the name "health". With `times` 0 nothing is watched. What a run does before
    its first rollback does not depend on any of this.

    Args:
        times: how often the run may roll back, the key `rollback`.
        lr: learning rates are multiplied by this at every rollback, see `lr_factor`.
        window: images over which every logged line of metrics must show a problem (or none) for a decision.
    """

    def __init__(self, run: Run[Any], limits: HealthLimits, *, times: int, lr: float, window: int) -> None:
        self.run, self.times, self.lr = run, times, lr
        self.record = HealthRecord(window, limits)
        self.events: list[dict[str, Any]] = []  # the rollbacks so far

    @property
    def state(self) -> Mapping[str, Stateful]:
        """Its entry in a checkpoint, by name."""
        return {"health": self}

    def state_dict(self) -> dict[str, Any]:
        return {stored: getattr(self.record, field) for field, stored in FIELDS.items()} | {"rollbacks": self.events}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.events = state["rollbacks"]
        self.record = replace(self.record, **{field: state[stored] for field, stored in FIELDS.items()})

    def begin(self, state: Mapping[str, Stateful], nimg: int) -> None:
        """Starts to watch at `nimg` images; `state` is what a checkpoint holds.

        Where no checkpoint is known to be healthy, the present one is taken to be; a fresh run saves one for that.
        """
        if not self.times:
            self.record = replace(self.record, last_ok=nimg, problem="", healthy=-1, candidate=-1)
        elif self.record.healthy < 0:
            self.record.last_ok = self.record.healthy = nimg
            if nimg == 0:
                self.run.save(state, nimg)
        self.run.store.protected = self.record.needed
        self._report()

    @property
    def draws(self) -> str:
        """A further part of the seeds of all random draws: "" before the first rollback."""
        return f"roll-back {len(self.events)}" if self.events else ""  # in seeds of existing runs: may not change

    def diverged(self, nimg: int, means: Mapping[str, float] | None) -> bool:
        """Records the means logged at `nimg` images, if any; returns whether to roll back.

        Called before the checkpoint of this step is written.
        """
        if not self.times:
            return False
        diverged = means is not None and self.record.observe(nimg, means)
        if self.run.due(self.run.config.checkpoint_nimg, nimg):
            self.record.saved(nimg)
        self.run.store.protected = self.record.needed
        return diverged

    def go_back(self, state: Mapping[str, Stateful], nimg: int) -> int:
        """Loads the last healthy checkpoint into `state`; returns its images seen.

        Raises:
            UserError: the run has rolled back `times` times before. All checkpoints are kept.
        """
        record, used = self.record, len(self.events)
        healthy_nimg, path = record.healthy, self.run.store.path(record.healthy)
        reason = f"{nimg:,} images: diverged since {record.last_ok:,}: {record.problem}"
        if used >= self.times:
            self._report((nimg, record.problem, "the run ended", ""))
            raise UserError(
                f"{reason}; this is the end after {used} rollbacks (rollback={self.times}). All checkpoints "
                f"are kept, the last healthy one is {path}. Larger rollback= tries again; other settings take a new "
                f"run, which init_from= may start from these weights"
            )
        event = {"nimg": nimg, "since": record.last_ok, "seen": record.problem, "back_to": healthy_nimg}
        healthy = replace(record, last_ok=healthy_nimg, problem="", healthy=healthy_nimg, candidate=-1)
        stored = {name: getattr(healthy, field) for field, name in FIELDS.items()}
        self.run.rewind(nimg, healthy_nimg, "health", {**stored, "rollbacks": [*self.events, event]})
        self.run.say(
            f"{reason}; back to the checkpoint of {healthy_nimg:,} images with other draws and learning rates times "
            f"{self.lr ** (used + 1):g}; it may go back {self.times - used - 1} more times"
        )
        resumed = self.run.resume(state)
        assert resumed == healthy_nimg and len(self.events) == used + 1
        self._report()
        return resumed

    @property
    def lr_factor(self) -> float:
        """What the learning rates of the configuration are multiplied by after the rollbacks so far."""
        return self.lr ** len(self.events)

    def _report(self, *last: tuple[Any, ...]) -> None:
        """Writes a section of the report, once there was a rollback."""
        rows = [
            (event["nimg"], event["seen"], f"back to {event['back_to']:,}", f"{self.lr**number:g}")
            for number, event in enumerate(self.events, start=1)
        ]
        if self.run.is_main and (rows or last):
            Section(
                "health",
                title="Health",
                text="A run that diverged for a whole window went back to the last healthy checkpoint, and on from "
                "there with other draws. Curves and samples show what came of it, not what was given up.",
                columns=["images seen", "what was seen", "what was done", "learning rates times"],
                rows=[*rows, *last],
            ).write(self.run.dir)
