"""Ends a training process that hangs, and reports where: without it a job would wait until its time limit.

A thread checks the time since the last heartbeat. It reads a clock and does not touch the device.
"""

import faulthandler
import sys
import threading
import time

from cluster_jobs.cli.exit_record import EXIT_HUNG, claim_exit, end_process, launched_ranks

FIRST_STEPS = 4  # of a process: they load data for the first time and compile
FIRST_STEPS_FACTOR = 4
GRACE = 5.0  # seconds beyond two checks of the clock, in which the other ranks time out and report as well
RECORD_SECONDS = 60.0  # the longest that the exit record may take to write
STANDARD_ERROR = 2  # the file descriptor, whatever sys.stderr is


def first_steps_limit(seconds: float) -> float:
    """The seconds that a watchdog of ``seconds`` allows between heartbeats in the first steps of a process."""
    return seconds * FIRST_STEPS_FACTOR


def end_in_c(seconds: float) -> None:
    """Ends this process ``seconds`` from now with exit code 1 and a traceback of every thread, unless called again."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=STANDARD_ERROR)


class Watchdog:
    """Watches this process from its construction until :meth:`stop`.

    Args:
        seconds: the longest time between two heartbeats, four times as long until the fourth step ends; 0 never ends
            the process.
        name: of this process in the message, for example ``rank 1 of 8``.
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
        """A heartbeat: the process made progress."""
        self._last = time.monotonic()

    def step(self, nimg: int) -> None:
        """A heartbeat: a step ended, at ``nimg`` images."""
        self._steps += 1
        self._nimg = nimg
        self.alive()

    def stop(self) -> None:
        """Stops watching."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._tick):
            self._arm()
            silence = time.monotonic() - self._last
            if silence > (self.seconds if self._steps >= FIRST_STEPS else first_steps_limit(self.seconds)):
                self._end(silence)
        faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        """Sets a timer in C, which fires even when a stuck extension holds the interpreter lock."""
        end_in_c(first_steps_limit(self.seconds) + self._tick)

    def _end(self, silence: float) -> None:
        claim_exit()
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        location = f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
        message = (
            f"{self.name} waited {silence:.0f} s for a step to end, at {self._nimg:,} images, in {location}; "
            f"watchdog_seconds={self.seconds:g} allows no more"
        )
        print(f"error: {message}; where every thread is:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(STANDARD_ERROR)
        # the first process to end takes the others down: they lose their connection, and the launcher ends them
        grace = 2 * self._tick + GRACE if launched_ranks() > 1 else 0.0
        end_in_c(grace + RECORD_SECONDS)
        time.sleep(grace)
        end_process(EXIT_HUNG, message)
