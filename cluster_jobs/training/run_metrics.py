"""The metrics of a run while it trains: metrics.jsonl, TensorBoard, a line on the console, and progress.json."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cluster_jobs.core.files import append_line, write_atomically, write_json
from cluster_jobs.core.progress import PROGRESS_FILE, duration
from cluster_jobs.distributed.job import Job


class Metrics:
    """Sums metrics on the device and writes their means at the log cadence.

    ``progress.json`` is for other programs: ``nimg`` images seen, ``saved_nimg`` of them in the newest
    checkpoint (only these survive a kill), ``total_nimg``, ``images_per_second``, ``seconds_left``, ``processes``, and
    ``time`` (seconds since 1970) when it was written.
    """

    def __init__(self, job: Job, directory: Path, total_nimg: int) -> None:
        self.job, self.directory, self.total_nimg = job, directory, total_nimg
        self.waited = 0.0
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}  # a metric need not come with every step
        self._begin = time.perf_counter()
        self._last_nimg = 0
        self._saved_nimg = 0
        self._rate = 0.0
        self._writer: Any = None

    def rewind(self, nimg: int, pending: Mapping[str, Any]) -> None:
        """Returns to the checkpoint of ``nimg`` images: removes later lines, so that every line appears once.

        Args:
            pending: what the checkpoint holds of :meth:`pending`, the sums since the last line.
        """
        self.close()
        self._writer = None  # the next one purges later events
        self._last_nimg = self._saved_nimg = nimg
        self._sums, self._counts = {}, {}
        for name, (count, sums) in pending.items():
            own = sums[self.job.rank] if len(sums) == self.job.world else sum(sums) / len(sums)
            self._sums[name] = torch.tensor(own, device=self.job.device)
            self._counts[name] = count
        self.waited, self._begin = 0.0, time.perf_counter()
        path = self.directory / "metrics.jsonl"
        if self.job.is_main and path.is_file():
            lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["nimg"] <= nimg]
            write_atomically(path, "".join(f"{line}\n" for line in kept).encode())

    def add(self, values: Mapping[str, torch.Tensor | float]) -> None:
        """Adds one step's metrics (scalars). Sums stay on the device: nothing waits for it."""
        for name, value in values.items():
            value = value.detach().float() if isinstance(value, torch.Tensor) else torch.tensor(float(value))
            value = value.to(self.job.device, non_blocking=True)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def pending(self) -> dict[str, tuple[int, list[float]]]:
        """The number of steps since the last flush and the sum over them on each rank, by name.

        Every rank must call this. It is part of checkpoints, so that means, and decisions made by them,
        are those of a run that was not killed.
        """
        if not self._sums:
            return {}
        sums = self.job.gather(torch.stack(list(self._sums.values()))[None]).T.tolist()
        return {name: (self._counts[name], each) for name, each in zip(self._sums, sums, strict=True)}

    def flush(self, nimg: int) -> dict[str, float]:
        """Writes and returns the means over ranks and all steps since the last flush. Every rank must call this."""
        names, means = list(self._sums), {}
        if names:
            rank_means = torch.stack([self._sums[name] / self._counts[name] for name in names])
            means = dict(zip(names, (self.job.reduce(rank_means) / self.job.world).tolist(), strict=True))
        now = time.perf_counter()
        elapsed = max(now - self._begin, 1e-9)
        self._rate = (nimg - self._last_nimg) / elapsed
        values = means | {"speed/images_per_second": self._rate, "speed/data_wait": self.waited / elapsed}
        self.write(nimg, values)
        self._write_progress(nimg)
        listed = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        self.job.say(
            f"{nimg:,}/{self.total_nimg:,} images  {self._rate:,.0f} images/s  "
            f"data wait {self.waited / elapsed:.0%}  {duration(self._seconds_left(nimg))} left  {listed}"
        )
        self._sums, self._counts, self.waited, self._begin, self._last_nimg = {}, {}, 0.0, now, nimg
        return means

    def write(self, nimg: int, values: dict[str, float]) -> None:
        """Writes one line of metrics at once, on the main rank."""
        if not self.job.is_main:
            return
        append_line(self.directory / "metrics.jsonl", json.dumps({"nimg": nimg, **values}))
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # imports slowly, and only the main rank writes

            self._writer = SummaryWriter(str(self.directory / "tensorboard"), purge_step=nimg)
        for name, value in values.items():
            self._writer.add_scalar(name, value, nimg)

    def saved(self, nimg: int) -> None:
        """Records that a checkpoint of ``nimg`` images was written. On the main rank."""
        self._saved_nimg = nimg
        self._write_progress(nimg)

    def _seconds_left(self, nimg: int) -> float:
        return max(0, self.total_nimg - nimg) / max(self._rate, 1e-9)

    def _write_progress(self, nimg: int) -> None:
        if not self.job.is_main:
            return
        record = {
            "nimg": nimg,
            "saved_nimg": self._saved_nimg,
            "total_nimg": self.total_nimg,
            "images_per_second": self._rate,
            "seconds_left": self._seconds_left(nimg) if self._rate else None,
            "processes": self.job.world,
            "time": time.time(),
        }
        write_json(self.directory / PROGRESS_FILE, record)

    def close(self) -> None:
        """Closes the TensorBoard events."""
        if self._writer is not None:
            self._writer.close()
