"""The run of one training command: its directory, frozen configuration, checkpoints, metrics and stop flag."""

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
class Score:
    """What a checkpoint scored; the best of a run is the lowest, or the highest, as all its scores say."""

    value: float
    higher_is_better: bool = False


class Run(Job, Generic[Config]):
    """A training run. Every rank makes one; collectives are inside, so every rank makes the same calls.

    `cluster_jobs.training.loop` trains with it.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.dir = Path(config.run.dir)
        frozen = read_frozen(self.dir)
        config.threads = set_threads(config.threads or (frozen or {}).get("threads", 0))
        # the ranks wait longer for each other than the watchdog does, because it says what it saw
        patience = watchdog.patience(config.watchdog_seconds) + 60 if config.watchdog_seconds else None
        super().__init__(start_accelerator(config.precision, patience))
        self.barrier()  # every rank has joined before one may refuse and end
        if config.batch % (self.world * config.accumulate):
            parts = f" of accumulate={config.accumulate} micro-batches" if config.accumulate > 1 else ""
            raise UserError(f"batch={config.batch} does not divide over {self.world} processes{parts}")
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
        timeout = None if patience is None else timedelta(seconds=patience)
        group = dist.new_group(backend="gloo", timeout=timeout) if self.world > 1 else None
        self._stop = StopFlag(self.dir, group)
        self._metrics = Metrics(self, self.dir, config.total_nimg)
        self._saved_nimg = -1
        self._watchdog = watchdog.Watchdog(config.watchdog_seconds, f"rank {self.rank} of {self.world}")
        weakref.finalize(self, self._watchdog.stop)

    def _enter(self) -> None:
        """Makes the run directory this process's own."""
        try:
            self.dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"run.dir={str(self.dir)!r}: cannot create it ({error.strerror})") from error
        lock.take(self.dir)
        write_frozen(self.dir, to_dict(self.config))
        for leftover in self.dir.glob(".*.tmp"):  # of a life that was killed while it wrote
            leftover.unlink(missing_ok=True)

    def prepare(self, module: Module) -> Module:
        """The module as the accelerator runs it: distributed data parallel over several ranks, autocast by
        ``precision``, its forward pass compiled where ``compile`` says so (in place: its state keeps its names).
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
        """This rank's part of the endless stream over ``shards``, as the configuration asks for it.

        Args:
            name: several streams of one run each have a name, and by it an order of their own.
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

    def resume(self, parts: Mapping[str, Stateful], optional: Collection[str] = ()) -> int:
        """Loads the newest valid checkpoint into the parts and returns the images seen; 0 for a fresh run.

        Args:
            optional: parts that checkpoints of earlier versions lack; these stay as they are.
        """
        found = self.store.latest()
        if self.is_main:
            self.store.sweep(found and found[1])
        if found is None:
            self._metrics.rewind(0, {})
            if self.config.init_from:
                self._initialise(parts)
            return 0
        state, nimg = found
        missing = sorted((set(parts) ^ set(state)) - (set(optional) - set(state)))
        if missing:
            raise UserError(f"{self.store.directory}: the checkpoint and this run differ in {', '.join(missing)}")
        for name in parts.keys() & state.keys():
            _load(parts[name], state[name], f"{self.store.directory}: {name}")
        self._saved_nimg = nimg
        self._metrics.rewind(nimg, self.store.facts(nimg).get("means", {}))
        self.say(f"resuming {self.dir} at {nimg:,} images")
        return nimg

    def _initialise(self, parts: Mapping[str, Stateful]) -> None:
        """Takes another run's weights, but none of its optimizers or counters."""
        _, state, _ = load_run(self.config.init_from)
        modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
        shared = sorted(set(modules) & set(state))
        if not shared:
            raise UserError(f"init_from={self.config.init_from}: holds none of {', '.join(modules)}")
        for name in shared:
            _load(modules[name], state[name], f"init_from={self.config.init_from}: {name}")
        self.say(f"starting from the weights of {self.config.init_from} ({', '.join(shared)})")

    def save(self, parts: Mapping[str, Stateful], nimg: int, score: Score | None = None) -> None:
        """Writes a checkpoint. Parts whose state lies on several ranks gather it in ``state_dict``, so all ranks call
        this.
        """
        state = {name: part.state_dict() for name, part in parts.items()}
        means = self._metrics.pending()

        def write() -> None:
            value, higher = (score.value, score.higher_is_better) if score else (None, False)
            self.store.save(state, nimg, score=value, higher_is_better=higher, means=means)
            self._metrics.saved(nimg)

        self.on_main(write)
        self._saved_nimg = nimg
        self._watchdog.alive()

    def rewind(self, nimg: int, to_nimg: int, part: str, state: State) -> None:
        """Gives up what came after ``to_nimg`` images, up to ``nimg``; ``resume`` goes on from there, with another
        state of one part, which holds no tensors. Every rank calls this.

        Raises:
            UserError: there is no such checkpoint, or it is torn; nothing was changed.
        """
        self.on_main(lambda: self.store.rewind(nimg, to_nimg, part, state))

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
        """As :meth:`Job.track`; to the watchdog each item is a sign of life."""
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
        """Writes a finished measurement (an evaluation) at once; equal on all ranks."""
        self._metrics.write(nimg, dict(values))
        self._watchdog.alive()

    def should_stop(self) -> bool:
        """Whether all ranks agreed to save and stop. A collective: once a step on every rank."""
        return self._stop.agreed()

    def preempt(self, parts: Mapping[str, Stateful], nimg: int) -> None:
        """Saves and ends the process with exit code 75; the same command goes on from here."""
        if self._saved_nimg != nimg:
            self.save(parts, nimg)
        self.barrier()
        if self.is_main:
            self._stop.clear()
        raise Preempted(f"stopped on request at {nimg:,} images, everything saved; the same command goes on from here")

    def finish(self, parts: Mapping[str, Stateful], nimg: int) -> None:
        """Saves the last step, closes the logs and ends the watch: what follows has no steps."""
        if self._saved_nimg != nimg:
            self.save(parts, nimg)
        self._metrics.close()
        self.barrier()
        self._watchdog.stop()


def load_run(directory: str | Path, checkpoint: str = "last") -> tuple[dict[str, Any], State, int]:
    """The frozen configuration, state and images seen of a run.

    Args:
        checkpoint: ``last``, ``best``, or the path of a ``.safetensors`` checkpoint.

    Raises:
        UserError: no run, no checkpoint, or a torn one.
    """
    directory = Path(directory)
    config = read_frozen(directory)
    if config is None:
        raise UserError(f"{str(directory)!r} is no run directory (it has no config.yaml)")
    store = CheckpointStore(directory / "checkpoints")
    if checkpoint == "last":
        found = store.latest()
        if found is None:
            raise UserError(f"{str(directory)!r} holds no valid checkpoint yet")
        return config, *found
    path = store.best() if checkpoint == "best" else Path(checkpoint)
    if path is None:
        raise UserError(f"checkpoint=best: no checkpoint in {str(directory)!r} has a score; use checkpoint=last")
    state, manifest = load_state(path)
    return config, state, manifest["nimg"]


def _load(part: Stateful, state: State, name: str) -> None:
    """Loads a part strictly, and gives optimizer moments the memory layout of their parameters."""
    try:
        part.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{name} does not fit this run: {' '.join(str(error).split())[:300]}") from error
    if isinstance(part, torch.optim.Optimizer):
        for parameter, moments in part.state.items():
            for key, value in moments.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    # kernels run over strides: same bits as before
                    moments[key] = torch.empty_like(parameter).copy_(value)
