"""Preemption is a flag: raised by a stop file or a signal, agreed by all ranks at a step boundary, never acted on in
a handler.
"""

import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist

from cluster_jobs.core.errors import STOP_FILE

FILE_CHECK_SECONDS = 1.0  # a stat on a shared file system costs milliseconds


class StopFlag:
    """Whether this run should save and stop.

    ``agreed()`` is a collective called once a step on every rank. The flag travels over a CPU group one step late, so
    that no step waits for it: the answer at step n is the maximum over the ranks of what each saw at step n-1.
    """

    def __init__(self, directory: Path, group: dist.ProcessGroup | None = None) -> None:
        self.file = directory / STOP_FILE
        self.group = group
        self._raised = False
        self._next_look = 0.0
        self._in_flight: tuple[torch.Tensor, dist.Work | None] | None = None
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        self._raised = True

    def _seen(self) -> bool:
        now = time.monotonic()
        if not self._raised and now >= self._next_look:
            self._next_look = now + FILE_CHECK_SECONDS
            self._raised = self.file.exists()
        return self._raised

    def agreed(self) -> bool:
        """Whether all ranks stop at this step boundary (the same answer on every rank)."""
        if self.group is None:
            return self._seen()
        answer = False
        if self._in_flight is not None:
            flag, work = self._in_flight
            if work is not None:
                work.wait()
            answer = bool(flag.item())
        flag = torch.tensor([int(self._seen())])
        self._in_flight = flag, dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self.group, async_op=True)
        return answer

    def clear(self) -> None:
        """Removes the stop file once everything is saved, so that the next life does not stop at once."""
        self.file.unlink(missing_ok=True)
