"""The kernel distance: unbiased squared MMD with a cubic kernel (Binkowski et al. 2018, arXiv 1801.01401, section
4).

What it is called depends on the detector behind the features (score.py): KID only on those of one network.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cluster_jobs.core.seeds import derive_seed


def polynomial_mmd2(x: Tensor, y: Tensor, chunk: int = 2048) -> Tensor:
    """Unbiased MMD² between x (n, F) and y (m, F), a float64 scalar; it can be negative.

    k(a, b) = (a·b / F + 1)³; the sums within x and within y leave out the diagonal (Gretton et al. 2012, lemma 6,
    eq. 3). At most `chunk` rows of the kernel matrix exist at a time.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"the kernel distance needs at least 2 samples a side, got {len(x)} and {len(y)}")
    x, y = x.double(), y.double()
    n, m = len(x), len(y)
    within_x = (_kernel_sum(x, x, chunk) - _kernel_diagonal(x)) / (n * (n - 1))
    within_y = (_kernel_sum(y, y, chunk) - _kernel_diagonal(y)) / (m * (m - 1))
    return within_x + within_y - 2 * _kernel_sum(x, y, chunk) / (n * m)


def kernel_distance(
    x: np.ndarray | Tensor, y: np.ndarray | Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float, int]:
    """Mean and standard deviation of MMD² over keyed random subsets, and the subset size that was used.

    x: (n, F), y: (m, F). Subset s takes min(size, n, m) samples a side without replacement, drawn from (seed, s).
    On the host where the device has no float64 (mps).
    """
    x, y = (table.cpu() if table.device.type == "mps" else table for table in map(torch.as_tensor, (x, y)))
    size = min(size, len(x), len(y))
    values = []
    for subset in range(subsets):
        random = np.random.Generator(np.random.PCG64(derive_seed(seed, "kernel", subset)))
        rows = [torch.from_numpy(random.choice(len(table), size, replace=False)) for table in (x, y)]
        values.append(polynomial_mmd2(x[rows[0].to(x.device)], y[rows[1].to(y.device)]))
    distances = torch.stack(values).cpu().numpy()
    return float(distances.mean()), float(distances.std()), size


def _kernel_sum(a: Tensor, b: Tensor, chunk: int) -> Tensor:
    total = a.new_zeros(())
    for rows in a.split(chunk):
        total = total + (rows @ b.T / a.shape[1] + 1).pow(3).sum()
    return total


def _kernel_diagonal(a: Tensor) -> Tensor:
    return (a.pow(2).sum(1) / a.shape[1] + 1).pow(3).sum()
