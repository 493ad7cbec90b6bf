"""One process of a (possibly distributed) command: its device, rank and world size, collectives, and a progress bar."""

import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

from cluster_jobs.cli.config import CommandKeys, Precision, TrainKeys
from cluster_jobs.cli.exit_record import rank
from cluster_jobs.core import progress
from cluster_jobs.core.errors import ReportedByMainRank, UserError
from cluster_jobs.core.files import disk_errors_as_user_errors

Item = TypeVar("Item")


class Job:
    """This process among those of its command.

    ``device``, ``rank``, ``world`` (the number of processes), ``is_main``, and collectives, which every rank must call.
    In a single process the collectives return at once.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.rank: int = accelerator.process_index
        self.world: int = accelerator.num_processes
        self.is_main: bool = accelerator.is_main_process

    @classmethod
    def open(cls, config: CommandKeys) -> "Job":
        """Starts the process group, if any, and sets the threads."""
        set_threads(config.threads)
        return cls(start_accelerator(Precision.no))

    def reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over ranks; gradients flow through it."""
        return tensor if self.world == 1 else _SumOverRanks.apply(tensor)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The ranks' tensors of shape (n, …) joined along the first axis, in rank order; n may differ between ranks."""
        if self.world == 1:
            return tensor
        counts = [torch.zeros(1, dtype=torch.int64, device=tensor.device) for _ in range(self.world)]
        dist.all_gather(counts, torch.tensor([len(tensor)], device=tensor.device))
        longest = max(int(count) for count in counts)
        padded = tensor.new_zeros((longest, *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        gathered = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(gathered, padded)
        return torch.cat([tensor[: int(count)] for tensor, count in zip(gathered, counts, strict=True)])

    def gather_with_gradients(self, tensor: torch.Tensor) -> torch.Tensor:
        """The ranks' tensors (n, ...) of equal n joined along the first axis, in rank order; gradients flow through.

        A loss that is the mean over a rank's own samples may so depend on all ranks' features: the ranks' averaged
        gradients are those of the mean over the global batch.
        """
        if self.world == 1:
            return tensor
        joined = tensor.new_zeros((self.world, *tensor.shape))
        joined[self.rank] = tensor
        return self.reduce(joined).flatten(0, 1)  # to a rank's part all others add zeros, which is exact

    def barrier(self) -> None:
        """Waits for all ranks."""
        if self.world > 1:
            self.accelerator.wait_for_everyone()

    def on_main(self, work: Callable[[], None]) -> None:
        """Runs ``work`` on the main rank while the others wait. A UserError that it raises ends all ranks."""
        failure: UserError | None = None
        if self.is_main:
            try:
                with disk_errors_as_user_errors():
                    work()
            except UserError as error:
                failure = error
        message = f"{failure or ''}\n".encode() if self.is_main else b""
        text = bytes(self.gather(torch.tensor(list(message), dtype=torch.uint8, device=self.device)).tolist()).decode()
        if failure is not None:
            raise failure
        if text.strip():
            raise ReportedByMainRank(text.strip())

    def say(self, text: str) -> None:
        """Prints on the main rank."""
        if self.is_main:
            print(text, flush=True)

    def track(self, items: Iterable[Item], total: int, unit: str, what: str = "", weight: int = 1) -> Iterator[Item]:
        """Yields the items; the main rank shows a progress bar with units/s and time left.

        Args:
            total: number of units.
            weight: units that one item counts as, over all ranks.
        """
        return progress.track(items, total, unit, what or unit, weight) if self.is_main else iter(items)


class _SumOverRanks(torch.autograd.Function):
    """The sum of all ranks' tensors. Each rank's loss depends on each tensor, so the gradients are summed as well."""

    @staticmethod
    def forward(context: Any, tensor: torch.Tensor) -> torch.Tensor:
        result = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(result)
        return result

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return _SumOverRanks.apply(gradient)  # differentiable once more, for gradient penalties


def start_accelerator(precision: Precision, timeout: float | None = None) -> Accelerator:
    """An Accelerator whose DDP leaves buffers alone: batch norm and spectral norm are equal on all ranks by
    construction.

    Results depend on the run's own keys alone: the precision and compilation in the user's configuration of accelerate
    are ignored.

    Args:
        timeout: seconds that a collective waits for the other ranks; None is torch's default.

    Raises:
        UserError: accelerate is configured to shard the models.
    """
    _check_launch(precision)
    handlers: list[Any] = [DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)]
    if timeout is not None:
        handlers.append(InitProcessGroupKwargs(timeout=timedelta(seconds=timeout)))
    return Accelerator(
        mixed_precision=precision.name,
        dynamo_backend="no",
        kwargs_handlers=handlers,
        cpu=not torch.cuda.is_available(),
    )


def _check_launch(precision: Precision) -> None:
    """Checks what ``accelerate launch`` took from its flags or from the user's default_config.yaml."""
    for name, what in (("DEEPSPEED", "DeepSpeed"), ("FSDP", "FSDP"), ("MEGATRON_LM", "Megatron-LM")):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise UserError(
                f"accelerate is configured for {what}, expected plain data parallel: run `accelerate config`, or give "
                "--multi_gpu, --num_processes and the like to accelerate launch"
            )
    for name, decides in (("MIXED_PRECISION", f"precision={precision.name}"), ("DYNAMO_BACKEND", "the key compile")):
        asked = os.environ.get(f"ACCELERATE_{name}", "no").lower()
        if asked not in ("no", precision.name) and rank() == 0:
            print(f"warning: accelerate is configured for {asked} ({name.lower()}), but {decides} decides", flush=True)


def set_threads(threads: int) -> int:
    """Sets the CPU threads of this process (0 takes the default) and returns their number."""
    default = int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads()
    torch.set_num_threads(threads or default)
    return threads or default


def reader_workers(config: TrainKeys, device: torch.device) -> int:
    """Reader processes per rank: the configured number, or (-1) none on a CPU and up to eight with an accelerator."""
    if config.workers >= 0:
        return config.workers
    return 0 if device.type == "cpu" else min(8, max(1, (os.cpu_count() or 1) // max(1, torch.cuda.device_count())))
