"""Back to the last healthy checkpoint when a run is sick, a bounded number of times, and on with other random draws.

The number of roll-backs so far is part of the checkpoint that the run went back to, and is written by one rename. Until
then a killed run comes to the same verdict again, after it the run goes on from there: either way it ends with the very
weights of a run that nobody killed.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cluster_jobs.errors import UserError
from cluster_jobs.run import Run, Stateful
from cluster_jobs.sections import write_section
from cluster_jobs.seeds import mix
from s3gan.config import TrainConfig
from s3gan.game import Game
from s3gan.health import Course, Limits


class Health:
    """Watches a run and takes it back. Part of its checkpoints; every rank makes the same calls.

    Nothing is watched with `rollback=0`. What a run does before its first roll-back does not depend on any of this.
    """

    def __init__(self, run: Run) -> None:
        assert isinstance(run.config, TrainConfig)
        self.run, self.config = run, run.config
        limits = Limits(self.config.min_d_loss, self.config.max_d_loss, self.config.min_diversity)
        self.course = Course(self.config.health_window, limits)
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
        if not self.config.rollback:
            self.load_state_dict(
                {"well": nimg, "complaint": "", "healthy": -1, "candidate": -1, "rollbacks": self.events}
            )
        elif self.course.healthy < 0:
            self.course.well = self.course.healthy = nimg
            if nimg == 0:
                self.run.save(parts, nimg)
        self.run.store.protected = self.course.needed
        self._report()

    def attempt(self, game: Game) -> Game:
        """The game as it is played after the roll-backs so far: with draws of its own and lower learning rates."""
        for optimizer, rate in ((game.optimizer_g, self.config.g_lr), (game.optimizer_d, self.config.d_lr)):
            for group in optimizer.param_groups:
                group["lr"] = rate * self._factor
        return replace(game, fakes=replace(game.fakes, seed=mix(self.config.seed, self.draws))) if self.draws else game

    @property
    def draws(self) -> str:
        """The name of the stream of real images, and of all other draws: "" before the first roll-back."""
        return f"roll-back {len(self.events)}" if self.events else ""

    def sick(self, nimg: int, means: Mapping[str, float] | None) -> bool:
        """Takes in what was logged at `nimg` images, if anything; whether to go back. Called before the checkpoint of
        this step is written.
        """
        if not self.config.rollback:
            return False
        sick = means is not None and self.course.observe(nimg, means)
        if self.run.due(self.config.checkpoint_nimg, nimg):
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
        if used >= self.config.rollback:
            self._report((nimg, course.complaint, "the run ended", ""))
            raise UserError(
                f"{seen}; this is the end after {used} roll-backs (rollback={self.config.rollback}). All checkpoints "
                f"are kept, the last healthy one is {path}. Larger rollback= tries again; other settings take a new "
                f"run, which init_from= may start from these weights"
            )
        event = {"nimg": nimg, "since": course.well, "seen": course.complaint, "back_to": place}
        healthy = {"well": place, "complaint": "", "healthy": place, "candidate": -1}
        self.run.rewind(nimg, place, "health", {**healthy, "rollbacks": [*self.events, event]})
        self.run.say(
            f"{seen}; back to the checkpoint of {place:,} images with other draws and learning rates times "
            f"{self.config.rollback_lr ** (used + 1):g}; it may go back {self.config.rollback - used - 1} more times"
        )
        found = self.run.resume(parts)
        assert found == place and len(self.events) == used + 1
        self._report()
        return found

    @property
    def _factor(self) -> float:
        return self.config.rollback_lr ** len(self.events)

    def _report(self, *last: tuple[Any, ...]) -> None:
        """A section of the report, once there is something to tell."""
        rows = [
            (event["nimg"], event["seen"], f"back to {event['back_to']:,}", f"{self.config.rollback_lr**number:g}")
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
