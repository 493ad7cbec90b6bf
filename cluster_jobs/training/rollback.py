"""Back to the last healthy checkpoint when a run is sick, a bounded number of times, and on with other random draws.

What is sick a training command says with `Limits`, by the means of metrics at the log cadence, which are equal on all
ranks. The number of roll-backs so far is part of the checkpoint that the run went back to, and is written by one
rename. Until then a killed run comes to the same verdict again, after it the run goes on from there: either way it ends
with the very weights of a run that nobody killed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cluster_jobs.core.errors import UserError
from cluster_jobs.reporting.section import write_section
from cluster_jobs.training.run import Run, Stateful


class Limits(Protocol):
    """Where a run is no longer well."""

    def complaint(self, means: Mapping[str, float]) -> str | None:
        """What is wrong with the means, in words; "" for nothing, None where they cannot tell."""


@dataclass
class Course:
    """What the observations so far say. A checkpoint is healthy once a window of images after it passed without a
    complaint; the run is sick once a whole window was full of complaints. All numbers are images seen; -1 is none.
    """

    window: int
    limits: Limits
    well: int = 0  # at the last observation without a complaint, or at the start
    complaint: str = ""  # of the last observation
    healthy: int = -1  # newest healthy checkpoint
    candidate: int = -1  # the checkpoint that is healthy next, if all goes on well

    def observe(self, nimg: int, means: Mapping[str, float]) -> bool:
        """Takes in the means up to `nimg` images; whether the run is sick."""
        complaint = self.limits.complaint(means)
        if complaint is None:
            return False
        self.complaint = complaint
        if complaint:
            self.candidate = -1
            return nimg - self.well >= self.window
        self.well = nimg
        if 0 <= self.candidate <= nimg - self.window:
            self.healthy, self.candidate = self.candidate, -1
        return False

    def saved(self, nimg: int) -> None:
        """A checkpoint of `nimg` images will be there, in a run that nobody disturbs as well as in one that was."""
        if self.candidate < 0 and not self.complaint:
            self.candidate = nimg

    @property
    def needed(self) -> frozenset[int]:
        """The checkpoints to keep."""
        return frozenset({self.healthy, self.candidate}) - {-1}


class Rollback:
    """Watches a run and takes it back. Part of its checkpoints, by the name "health"; every rank makes the same calls.

    Nothing is watched where `times` is 0. What a run does before its first roll-back does not depend on any of this.

    Args:
        times: how often it may go back, the key `rollback`.
        lr: learning rates are multiplied by this at every roll-back, see `factor`.
        window: images over which every line of metrics must be bad (or good) for a verdict.
    """

    def __init__(self, run: Run, limits: Limits, *, times: int, lr: float, window: int) -> None:
        self.run, self.times, self.lr = run, times, lr
        self.course = Course(window, limits)
        self.events: list[dict[str, Any]] = []  # the roll-backs so far

    def state_dict(self) -> dict[str, Any]:
        course = self.course
        numbers = {name: getattr(course, name) for name in ("well", "complaint", "healthy", "candidate")}
        return {**numbers, "rollbacks": self.events}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        numbers = dict(state)
        self.events = numbers.pop("rollbacks")
        self.course = replace(self.course, **numbers)

    def begin(self, parts: Mapping[str, Stateful], nimg: int) -> None:
        """Starts to watch at `nimg` images. Where nothing is known to be healthy, this place is taken for it: the start
        of a run is saved.
        """
        if not self.times:
            self.load_state_dict(
                {"well": nimg, "complaint": "", "healthy": -1, "candidate": -1, "rollbacks": self.events}
            )
        elif self.course.healthy < 0:
            self.course.well = self.course.healthy = nimg
            if nimg == 0:
                self.run.save(parts, nimg)
        self.run.store.protected = self.course.needed
        self._report()

    @property
    def draws(self) -> str:
        """The name of the stream of real images, and of all other draws: "" before the first roll-back."""
        return f"roll-back {len(self.events)}" if self.events else ""

    def sick(self, nimg: int, means: Mapping[str, float] | None) -> bool:
        """Takes in what was logged at `nimg` images, if anything; whether to go back. Called before the checkpoint of
        this step is written.
        """
        if not self.times:
            return False
        sick = means is not None and self.course.observe(nimg, means)
        if self.run.due(self.run.config.checkpoint_nimg, nimg):
            self.course.saved(nimg)
        self.run.store.protected = self.course.needed
        return sick

    def roll_back(self, parts: Mapping[str, Stateful], nimg: int) -> int:
        """Goes back to the last healthy checkpoint; returns the images seen there.

        Raises:
            UserError: that has been done `rollback` times before. All checkpoints are still there.
        """
        course, used = self.course, len(self.events)
        place, path = course.healthy, self.run.store.path(course.healthy)
        seen = f"{nimg:,} images: sick since {course.well:,}: {course.complaint}"
        if used >= self.times:
            self._report((nimg, course.complaint, "the run ended", ""))
            raise UserError(
                f"{seen}; this is the end after {used} roll-backs (rollback={self.times}). All checkpoints "
                f"are kept, the last healthy one is {path}. Larger rollback= tries again; other settings take a new "
                f"run, which init_from= may start from these weights"
            )
        event = {"nimg": nimg, "since": course.well, "seen": course.complaint, "back_to": place}
        healthy = {"well": place, "complaint": "", "healthy": place, "candidate": -1}
        self.run.rewind(nimg, place, "health", {**healthy, "rollbacks": [*self.events, event]})
        self.run.say(
            f"{seen}; back to the checkpoint of {place:,} images with other draws and learning rates times "
            f"{self.lr ** (used + 1):g}; it may go back {self.times - used - 1} more times"
        )
        found = self.run.resume(parts)
        assert found == place and len(self.events) == used + 1
        self._report()
        return found

    @property
    def factor(self) -> float:
        """What the learning rates of the configuration are multiplied by after the roll-backs so far."""
        return self.lr ** len(self.events)

    def _report(self, *last: tuple[Any, ...]) -> None:
        """A section of the report, once there is something to tell."""
        rows = [
            (event["nimg"], event["seen"], f"back to {event['back_to']:,}", f"{self.lr**number:g}")
            for number, event in enumerate(self.events, start=1)
        ]
        if self.run.is_main and (rows or last):
            write_section(
                self.run.dir,
                "health",
                title="Health",
                text="A run that was sick for a whole window went back to the last healthy checkpoint, and on from "
                "there with other draws. Curves and samples show what came of it, not what was given up.",
                columns=["images seen", "what was seen", "what was done", "learning rates times"],
                rows=[*rows, *last],
            )
