"""Ends a training process that hangs, and says where: without it a job waits in silence until its time limit.

A thread looks at the time since the last sign of life. It reads a clock and nothing of the device.
"""

import faulthandler
import sys
import threading
import time

from cluster_jobs.cli.exit_record import EXIT_HUNG, claim_exit, end_process, launched_ranks

FIRST_STEPS = 4  # of a life: they load data for the first time and compile
FIRST_STEPS_FACTOR = 4
GRACE = 5.0  # seconds beyond two looks of the clock, in which the other ranks see their own silence and say so
RECORD_SECONDS = 60.0  # the longest that the exit record may take to write
STANDARD_ERROR = 2  # the descriptor, whatever sys.stderr is


def patience(seconds: float) -> float:
    """The longest silence, in seconds, that a watchdog over ``seconds`` allows: in the first steps of a life."""
    return seconds * FIRST_STEPS_FACTOR


def end_in_c(seconds: float) -> None:
    """Ends this process in ``seconds`` from now with exit code 1 and the stacks, unless it is called again."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=STANDARD_ERROR)


class Watchdog:
    """Watches this process from its making until :meth:`stop`.

    Args:
        seconds: the longest time between two signs of life, four times as long until the fourth step ends; 0: never
            end the process.
        name: this process in the message, for example ``rank 1 of 8``.
    """

    def __init__(self, seconds: float, name: str) -> None:
        self.seconds, self.name = seconds, name
        self._tick = min(5.0, seconds / 10)
        self._steps, self._nimg = 0, 0
        self._last = time.monotonic()
        self._stopped = threading.Event()
        if seconds:
            self._arm()
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def alive(self) -> None:
        """A sign of life: the process went on."""
        self._last = time.monotonic()

    def step(self, nimg: int) -> None:
        """A sign of life: a step ended, at ``nimg`` images."""
        self._steps += 1
        self._nimg = nimg
        self.alive()

    def stop(self) -> None:
        """Ends the watch."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._tick):
            self._arm()
            silence = time.monotonic() - self._last
            if silence > (self.seconds if self._steps >= FIRST_STEPS else patience(self.seconds)):
                self._end(silence)
        faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        """Sets the timer in C, which fires where a stuck extension holds the interpreter, so that no thread can run."""
        end_in_c(patience(self.seconds) + self._tick)

    def _end(self, silence: float) -> None:
        claim_exit()
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        place = f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
        message = (
            f"{self.name} waited {silence:.0f} s for a step to end, at {self._nimg:,} images, in {place}; "
            f"watchdog_seconds={self.seconds:g} allows no more"
        )
        print(f"error: {message}; where every thread is:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(STANDARD_ERROR)
        # the first end takes the others down: they lose their connection, and the launcher ends them
        grace = 2 * self._tick + GRACE if launched_ranks() > 1 else 0.0
        end_in_c(grace + RECORD_SECONDS)
        time.sleep(grace)
        end_process(EXIT_HUNG, message)
