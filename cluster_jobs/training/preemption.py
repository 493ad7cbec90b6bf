"""What happens on SIGTERM (SIGUSR1, SIGUSR2, a stop file): a flag is set, on which all ranks agree after a step.

The training loop then saves and ends the process with exit code 75 (``Run.preempt``). The signal handler does no more
than set the flag.
"""

import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist

from cluster_jobs.core.errors import STOP_FILE

FILE_CHECK_SECONDS = 1.0  # between two looks at the stop file: a stat on a shared file system costs milliseconds


class StopFlag:
    """Whether this run should save and stop.

    ``agreed()`` is a collective, called once per step on every rank. The flag is all-reduced over a CPU process group
    and read one step later, so that no step waits for it: the answer at step n is the maximum over the ranks of their
    flags at step n-1.

    Args:
        directory: the run directory, in which the stop file appears.
        group: a CPU process group of all ranks; None for a single process.
    """

    def __init__(self, directory: Path, group: dist.ProcessGroup | None = None) -> None:
        self.file = directory / STOP_FILE
        self.group = group
        self._requested = False
        self._next_check = 0.0
        self._in_flight: tuple[torch.Tensor, dist.Work | None] | None = None
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        self._requested = True

    def _is_requested(self) -> bool:
        now = time.monotonic()
        if not self._requested and now >= self._next_check:
            self._next_check = now + FILE_CHECK_SECONDS
            self._requested = self.file.exists()
        return self._requested

    def agreed(self) -> bool:
        """Whether all ranks stop at this step boundary (the same answer on every rank)."""
        if self.group is None:
            return self._is_requested()
        answer = False
        if self._in_flight is not None:
            flag, work = self._in_flight
            if work is not None:
                work.wait()
            answer = bool(flag.item())
        flag = torch.tensor([int(self._is_requested())])
        self._in_flight = flag, dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self.group, async_op=True)
        return answer

    def clear(self) -> None:
        """Removes the stop file once everything is saved, so that the restarted run does not stop at once."""
        self.file.unlink(missing_ok=True)
