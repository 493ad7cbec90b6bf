"""Batch normalisation whose batch moments can be all-reduced over ranks (Ioffe & Szegedy 2015, Algorithm 1).

It works on gloo, where SyncBatchNorm does not. The sum over ranks is an argument, so layers do not depend on a process
group.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Reduce = Callable[[Tensor], Tensor]


def moments(x: Tensor, reduce: Reduce | None = None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of x (N, C, ...) over all but the channels, and over ranks: two (C,) float32.

    `reduce` sums a tensor over the ranks differentiably; it is called exactly once, also where N is 0 on this rank.
    """
    mean, variance, _ = _moments(x, reduce)
    return mean, variance


def _moments(x: Tensor, reduce: Reduce | None) -> tuple[Tensor, Tensor, Tensor]:
    x = x.float().transpose(0, 1).flatten(1)  # (C, n)
    count = x.new_full((1,), x.shape[1])
    sums = torch.cat([x.sum(1), x.square().sum(1), count])
    if reduce is not None:
        sums = reduce(sums)
    channels = len(x)
    count = sums[-1].detach().clamp(min=1)
    mean = sums[:channels] / count
    variance = (sums[channels : 2 * channels] / count - mean.square()).clamp(min=0)
    return mean, variance, count


class BatchNorm(nn.Module):
    """Batch norm over (N, C, ...) with torch's running statistics (unbiased variance, exponential average).

    In training the moments are those of the global batch where `reduce` is set (see `synchronise`). A non-finite batch
    does not change the running statistics: a skipped training step changes nothing.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, affine: bool = True, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.reduce: Reduce | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        running = self.running_mean.clone(), self.running_var.clone()
        if self.reduce is None:  # the fused kernel
            x = F.batch_norm(x, *running, self.weight, self.bias, True, self.momentum, self.eps)
        else:
            mean, variance, count = _moments(x, self.reduce)
            scale = (variance + self.eps).rsqrt()
            shift = -mean * scale
            if self.weight is not None and self.bias is not None:
                scale, shift = scale * self.weight, shift * self.weight + self.bias
            shape = (1, -1) + (1,) * (x.ndim - 2)
            x = (x.float() * scale.view(shape) + shift.view(shape)).to(x.dtype)
            with torch.no_grad():
                running[0].lerp_(mean, self.momentum)
                running[1].lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        with torch.no_grad():
            finite = running[0].isfinite() & running[1].isfinite()
            self.running_mean.copy_(torch.where(finite, running[0], self.running_mean))
            self.running_var.copy_(torch.where(finite, running[1], self.running_var))
        return x

    def extra_repr(self) -> str:
        return f"{self.num_features}, affine={self.weight is not None}, eps={self.eps}, momentum={self.momentum}"


def synchronise(module: nn.Module, reduce: Reduce | None) -> None:
    """Make every BatchNorm inside `module` normalise by the moments of the global batch (None: of the local batch)."""
    for child in module.modules():
        if isinstance(child, BatchNorm):
            child.reduce = reduce
