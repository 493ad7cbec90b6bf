"""One optimizer step that never waits for the device and never lets a non-finite gradient into the weights.

A rank's share of the batch may be cut into micro-batches (gradient accumulation): less memory, the same step. Losses
are means over images, so the gradient is that of the undivided batch up to rounding, wherever an image's loss does not
depend on its neighbours: batch norm in training normalises each micro-batch alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cluster_jobs.core.errors import UserError

Metrics = dict[str, Tensor]
Tensors = TypeVar("Tensors", bound=tuple[Any, ...])  # a tuple of tensors, or a NamedTuple of them


def micro_batches(count: int, batch: Tensors) -> list[Tensors]:
    """Cuts the tensors (n, ...) of a tuple or NamedTuple alike into ``count`` equal micro-batches; n must divide.

    Micro-batch m holds every ``count``-th sample, beginning with sample m. So the last samples of the micro-batches are
    the last of the batch, and a batch made of equal blocks gives micro-batches made of equal blocks.
    """
    assert all(len(tensor) % count == 0 for tensor in batch), f"{[len(tensor) for tensor in batch]} over {count}"
    make: Callable[[Iterable[Tensor]], Tensors] = getattr(batch, "_make", type(batch))
    return [make(tensor[first::count] for tensor in batch) for first in range(count)]


def update(
    optimizer: torch.optim.Optimizer,
    module: nn.Module,
    batches: Sequence[Tensors],
    loss: Callable[[Tensors], tuple[Tensor, Metrics]],
) -> tuple[Metrics, Tensor]:
    """One step on the mean loss of the micro-batches. A non-finite gradient leaves weights and moments as they were,
    decided on the device.

    Args:
        optimizer: a fused one, which can mask a step on the device.
        module: what the loss calls, as the run prepared it (``Run.prepare``). Over several ranks its gradients are
            averaged once per step, in the backward pass of the last micro-batch.
        batches: the micro-batches.
        loss: from a micro-batch to its mean loss and its metrics (scalars).

    Returns:
        The metrics' means over the micro-batches, and 1 where the step was skipped, else 0: equal on all ranks, as
        gradients are.

    Raises:
        UserError: the module is compiled, and that fails.
    """
    optimizer.zero_grad(set_to_none=True)
    sums: Metrics = {}
    for number, batch in enumerate(batches, 1):
        waits = number < len(batches) and isinstance(module, DistributedDataParallel)
        with module.no_sync() if waits else nullcontext(), compile_errors_in_one_line():  # type: ignore[operator]
            mean, metrics = loss(batch)
            (mean / len(batches)).backward()
        sums = {name: sums[name] + value.detach() if sums else value.detach() for name, value in metrics.items()}
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    skipped = 1.0 - torch.nn.utils.get_total_norm(gradients).isfinite().float()
    optimizer.found_inf = skipped  # type: ignore[attr-defined]  # how a gradient scaler masks a fused step
    optimizer.step()
    return {name: total / len(batches) for name, total in sums.items()}, skipped


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of all of an optimizer's parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr


@contextmanager
def compile_errors_in_one_line() -> Iterator[None]:
    """Turns a failure of torch.compile, which is raised in the first forward or backward pass, into a UserError."""
    from torch._dynamo.exc import TorchDynamoException  # imports slowly, and only training needs it

    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"compile=true: torch.compile failed ({reason}); compile=false trains without it") from error
