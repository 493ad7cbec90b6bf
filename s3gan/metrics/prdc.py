"""Precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991), density and coverage (Naeem et al. 2020, arXiv
2002.09797): how two sets of features overlap, seen through the balls around points that reach their k-th neighbour.
"""

from __future__ import annotations

import torch
from torch import Tensor

from s3gan.metrics.knn import blocks, nearest

PRECISION_RECALL_K = 3  # Kynkäänniemi et al., section 3
DENSITY_COVERAGE_K = 5  # Naeem et al., section 3.2


def squared_radii(points: Tensor) -> dict[int, Tensor]:
    """For both k in use: the squared distance of each point (n, F) to its k-th nearest other point, (n,) float64.

    Raises:
        ValueError: there are no more points than k.
    """
    wanted = PRECISION_RECALL_K, DENSITY_COVERAGE_K
    distances = nearest(points, points, max(wanted) + 1)[0]  # each point's nearest is itself
    return {k: distances[:, k].contiguous() for k in wanted}


def prdc(
    real: Tensor, fake: Tensor, real_radii: dict[int, Tensor] | None = None, fake_radii: dict[int, Tensor] | None = None
) -> dict[str, float]:
    """The four scores of features real (n, F) and fake (m, F), float64; usually n = m, since radii shrink with n.

    - precision: the share of fakes inside the ball (k = 3) of any real point (Kynkäänniemi et al., eq. 2);
    - recall: the share of reals inside the ball (k = 3) of any fake point (eq. 2 again);
    - density: how many balls (k = 5) of real points hold a fake, on average, divided by k (Naeem et al., eq. 3);
    - coverage: the share of the balls (k = 5) of real points that hold a fake (eq. 4).

    A point on a ball's rim is inside. Rounding, up to 10⁻¹² of the largest squared norm, puts no point outside.

    Args:
        real_radii, fake_radii: `squared_radii` of the two sets where they are known already.
    """
    real_radii, fake_radii = real_radii or squared_radii(real), fake_radii or squared_radii(fake)
    slack = 1e-12 * max(float(points.pow(2).sum(1).max()) for points in (real, fake))
    inside_real = real_radii[PRECISION_RECALL_K] + slack
    inside_fake = fake_radii[PRECISION_RECALL_K] + slack
    inside_wide = real_radii[DENSITY_COVERAGE_K] + slack

    near_real = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    near_fake = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    held = torch.zeros(len(real), dtype=torch.int64, device=real.device)
    for rows, columns, block in blocks(real, fake):
        near_real[columns] |= (block <= inside_real[rows, None]).any(0)
        near_fake[rows] |= (block <= inside_fake[columns]).any(1)
        held[rows] += (block <= inside_wide[rows, None]).sum(1)
    return {
        "precision": int(near_real.sum()) / len(fake),
        "recall": int(near_fake.sum()) / len(real),
        "density": int(held.sum()) / (DENSITY_COVERAGE_K * len(fake)),
        "coverage": int((held > 0).sum()) / len(real),
    }
