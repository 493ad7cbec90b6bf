"""A training run: its directory, frozen configuration, checkpoints, metrics, stop flag and watchdog."""

import time
import warnings
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from cluster_jobs.cli.config import TrainKeys, default_values, to_dict, under_present_names
from cluster_jobs.core import lock
from cluster_jobs.core.errors import Preempted, UserError
from cluster_jobs.core.seeds import derive_seed
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Stream
from cluster_jobs.distributed.job import Job, reader_workers, set_threads, start_accelerator
from cluster_jobs.training import watchdog
from cluster_jobs.training.checkpoint import CheckpointStore, State, load_state
from cluster_jobs.training.frozen_config import check_unchanged, read_frozen, write_frozen
from cluster_jobs.training.preemption import StopFlag
from cluster_jobs.training.run_metrics import Metrics

Config = TypeVar("Config", bound=TrainKeys, covariant=True)
Item = TypeVar("Item")
Module = TypeVar("Module", bound=torch.nn.Module)


class Stateful(Protocol):
    """What a checkpoint holds: modules, optimizers, buffers of past images."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class CheckpointScore:
    """The score of a checkpoint, and its direction, which is the same for all checkpoints of a run."""

    value: float
    higher_is_better: bool = False


class Run(Job, Generic[Config]):
    """A training run: what `cluster_jobs.training.loop` calls to log, save, resume and stop.

    Every rank makes one. Its methods contain collectives, so every rank must make the same calls.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.dir = Path(config.run.dir)
        frozen = read_frozen(self.dir)
        config.threads = set_threads(config.threads or (frozen or {}).get("threads", 0))
        # collectives time out later than the watchdog, whose message says where the process hangs
        timeout = watchdog.first_steps_limit(config.watchdog_seconds) + 60 if config.watchdog_seconds else None
        super().__init__(start_accelerator(config.precision, timeout))
        self.barrier()  # every rank has joined before one may refuse and end
        if config.batch % (self.world * config.accumulate):
            micro = f" of accumulate={config.accumulate} micro-batches" if config.accumulate > 1 else ""
            raise UserError(f"batch={config.batch} does not divide over {self.world} processes{micro}")
        self.workers = reader_workers(config, self.device)
        self.local_batch = config.batch // self.world
        self.samples_dir = self.dir / "samples"
        if frozen is not None:
            frozen = under_present_names(type(config), frozen)
            check_unchanged(self.dir, frozen, to_dict(config), default_values(type(config)))
            if frozen.get("batch") != config.batch:
                self.say(f"batch={config.batch} instead of {frozen.get('batch')} from here on")
        self.barrier()  # every rank has compared before one rewrites
        self.on_main(self._enter)
        lock.join(self.dir)
        self.store = CheckpointStore(self.dir / "checkpoints", config.keep_last, config.keep_best)
        delta = None if timeout is None else timedelta(seconds=timeout)
        group = dist.new_group(backend="gloo", timeout=delta) if self.world > 1 else None
        self._stop = StopFlag(self.dir, group)
        self._metrics = Metrics(self, self.dir, config.total_nimg)
        self._saved_nimg = -1
        self._watchdog = watchdog.Watchdog(config.watchdog_seconds, f"rank {self.rank} of {self.world}")
        weakref.finalize(self, self._watchdog.stop)

    def _enter(self) -> None:
        """Creates and locks the run directory and writes the configuration. On the main rank."""
        try:
            self.dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"run.dir={str(self.dir)!r}: cannot create it ({error.strerror})") from error
        lock.take(self.dir)
        write_frozen(self.dir, to_dict(self.config))
        for leftover in self.dir.glob(".*.tmp"):  # of a process that was killed while it wrote
            leftover.unlink(missing_ok=True)

    def prepare(self, module: Module) -> Module:
        """The module wrapped for training: distributed data parallel over several ranks, autocast by ``precision``.

        With ``compile`` its forward pass is compiled, in place: the names of its state stay the same.
        """
        if self.config.compile:
            module.compile(dynamic=False)  # there are few shapes, and each has kernels of its own
        with warnings.catch_warnings():  # torch 2.13 renames an argument that accelerate passes by its old name
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return self.accelerator.prepare(module)

    def autocast(self) -> AbstractContextManager:
        """Mixed precision as configured, for code that calls modules that were not prepared."""
        return self.accelerator.autocast()

    def stream(
        self,
        shards: Shards,
        *,
        mine: slice,
        name: str = "",
        subset: np.ndarray | None = None,
    ) -> Stream:
        """This rank's share of the infinite stream over ``shards``, with the configuration's seed, batch and workers.

        Args:
            name: part of the stream's seed: the streams of one run have different names, so their orders differ.
            mine, subset: as in :class:`Stream`.
        """
        return Stream(
            shards,
            seed=derive_seed(self.config.seed, name) if name else self.config.seed,
            batch=self.config.batch,
            mine=mine,
            window=self.config.window,
            workers=self.workers,
            damaged=self.config.damaged.name,
            subset=subset,
        )

    def resume(self, state: Mapping[str, Stateful], optional: Collection[str] = ()) -> int:
        """Loads the newest valid checkpoint into ``state`` and returns the images seen; 0 for a fresh run.

        Args:
            optional: names that checkpoints of earlier versions lack; these entries stay as they are.
        """
        latest = self.store.latest()
        if self.is_main:
            self.store.sweep(latest and latest[1])
        if latest is None:
            self._metrics.rewind(0, {})
            if self.config.init_from:
                self._initialise(state)
            return 0
        values, nimg = latest
        missing = sorted((set(state) ^ set(values)) - (set(optional) - set(values)))
        if missing:
            raise UserError(f"{self.store.directory}: the checkpoint and this run differ in {', '.join(missing)}")
        for name in state.keys() & values.keys():
            _load(state[name], values[name], f"{self.store.directory}: {name}")
        self._saved_nimg = nimg
        self._metrics.rewind(nimg, self.store.facts(nimg).get("means", {}))
        self.say(f"resuming {self.dir} at {nimg:,} images")
        return nimg

    def _initialise(self, state: Mapping[str, Stateful]) -> None:
        """Loads another run's weights (``init_from``), but none of its optimizers or counters."""
        _, values, _ = load_run(self.config.init_from)
        modules = {name: entry for name, entry in state.items() if isinstance(entry, torch.nn.Module)}
        shared = sorted(set(modules) & set(values))
        if not shared:
            raise UserError(f"init_from={self.config.init_from}: holds none of {', '.join(modules)}")
        for name in shared:
            _load(modules[name], values[name], f"init_from={self.config.init_from}: {name}")
        self.say(f"starting from the weights of {self.config.init_from} ({', '.join(shared)})")

    def save(self, state: Mapping[str, Stateful], nimg: int, score: CheckpointScore | None = None) -> None:
        """Writes a checkpoint. Every rank must call this: a ``state_dict`` may gather values from all ranks."""
        values = {name: entry.state_dict() for name, entry in state.items()}
        means = self._metrics.pending()

        def write() -> None:
            value, higher = (score.value, score.higher_is_better) if score else (None, False)
            self.store.save(values, nimg, score=value, higher_is_better=higher, means=means)
            self._metrics.saved(nimg)

        self.on_main(write)
        self._saved_nimg = nimg
        self._watchdog.alive()

    def rewind(self, nimg: int, to_nimg: int, name: str, entry: State) -> None:
        """Discards the training after ``to_nimg`` images, up to ``nimg``; ``resume`` continues there.

        Every rank must call this. Arguments and errors are those of :meth:`CheckpointStore.rewind`.
        """
        self.on_main(lambda: self.store.rewind(nimg, to_nimg, name, entry))

    def due(self, cadence_nimg: int, nimg: int) -> bool:
        """Whether the step that ended at ``nimg`` images crossed a multiple of the cadence."""
        return nimg // cadence_nimg != (nimg - self.config.batch) // cadence_nimg

    def timed(self, items: Iterator[Item]) -> Iterator[Item]:
        """Passes batches through and measures how long the loop waits for them."""
        while True:
            begin = time.perf_counter()
            item = next(items)
            self._metrics.waited += time.perf_counter() - begin
            yield item
            self._watchdog.alive()

    def track(self, items: Iterable[Item], total: int, unit: str, what: str = "", weight: int = 1) -> Iterator[Item]:
        """As :meth:`Job.track`; each item is a heartbeat for the watchdog."""
        for item in super().track(items, total, unit, what, weight):
            yield item
            self._watchdog.alive()

    def log(self, nimg: int, values: Mapping[str, torch.Tensor | float]) -> dict[str, float] | None:
        """Adds one step's metrics (scalars; device tensors stay there). At the log cadence their means over steps and
        ranks go to ``metrics.jsonl``, TensorBoard and the progress line, and are returned: equal on all ranks."""
        self._metrics.add(values)
        means = self._metrics.flush(nimg) if self.due(self.config.log_nimg, nimg) else None
        self._watchdog.step(nimg)
        return means

    def record(self, nimg: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of an evaluation at once; they are equal on all ranks."""
        self._metrics.write(nimg, dict(values))
        self._watchdog.alive()

    def should_stop(self) -> bool:
        """Whether all ranks agreed to save and stop. Every rank must call this once per step."""
        return self._stop.agreed()

    def preempt(self, state: Mapping[str, Stateful], nimg: int) -> None:
        """Saves and raises Preempted, which ends the process with exit code 75; the same command resumes the run."""
        if self._saved_nimg != nimg:
            self.save(state, nimg)
        self.barrier()
        if self.is_main:
            self._stop.clear()
        raise Preempted(f"stopped on request at {nimg:,} images, everything saved; the same command goes on from here")

    def finish(self, state: Mapping[str, Stateful], nimg: int) -> None:
        """Saves the last step, closes the logs and stops the watchdog: no further steps follow."""
        if self._saved_nimg != nimg:
            self.save(state, nimg)
        self._metrics.close()
        self.barrier()
        self._watchdog.stop()


def load_run(directory: str | Path, checkpoint: str = "last") -> tuple[dict[str, Any], State, int]:
    """The frozen configuration, state and images seen of a run.

    Args:
        checkpoint: ``last``, ``best``, or the path of a ``.safetensors`` checkpoint.

    Raises:
        UserError: there is no run or no checkpoint, or the checkpoint is damaged.
    """
    directory = Path(directory)
    config = read_frozen(directory)
    if config is None:
        raise UserError(f"{str(directory)!r} is no run directory (it has no config.yaml)")
    store = CheckpointStore(directory / "checkpoints")
    if checkpoint == "last":
        latest = store.latest()
        if latest is None:
            raise UserError(f"{str(directory)!r} holds no valid checkpoint yet")
        return config, *latest
    path = store.best() if checkpoint == "best" else Path(checkpoint)
    if path is None:
        raise UserError(f"checkpoint=best: no checkpoint in {str(directory)!r} has a score; use checkpoint=last")
    state, manifest = load_state(path)
    return config, state, manifest["nimg"]


def _load(entry: Stateful, values: State, name: str) -> None:
    """Loads values strictly, and gives optimizer moments the memory layout of their parameters."""
    try:
        entry.load_state_dict(values)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{name} does not fit this run: {' '.join(str(error).split())[:300]}") from error
    if isinstance(entry, torch.optim.Optimizer):
        for parameter, moments in entry.state.items():
            for key, value in moments.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    # the order of a sum depends on strides: resumed runs stay bit-identical
                    moments[key] = torch.empty_like(parameter).copy_(value)
