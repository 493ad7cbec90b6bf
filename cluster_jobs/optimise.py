"""One optimizer step that never waits for the device and never lets a non-finite gradient into the weights."""

import torch
from torch import Tensor


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """Backward and step. A non-finite gradient leaves weights and moments as they were, decided on the device.

    Needs a fused optimizer. Returns 1 where the step was skipped, else 0; equal on all ranks, as gradients are.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    skipped = 1.0 - torch.nn.utils.get_total_norm(gradients).isfinite().float()
    optimizer.found_inf = skipped  # type: ignore[attr-defined]  # how a gradient scaler masks a fused step
    optimizer.step()
    return skipped
