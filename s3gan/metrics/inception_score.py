"""The Inception Score (Salimans et al. 2016, arXiv 1606.03498, section 4): how sure and how varied the classes are."""

from __future__ import annotations

import numpy as np
import torch

SPLITS = 10


def inception_score(features: np.ndarray, weight: np.ndarray, splits: int = SPLITS) -> tuple[float, float]:
    """exp of the mean KL(p(y | x) ‖ p(y)) over images: its mean and standard deviation over consecutive splits.

    Args:
        features: (N, F) of the images in an order that has nothing to do with their classes.
        weight: (classes, F) of the last linear map. Its bias is left out, as in the authors' code.

    Raises:
        ValueError: fewer images than splits.
    """
    if len(features) < splits:
        raise ValueError(f"{len(features)} images cannot be split into {splits}")
    logs = torch.log_softmax(torch.from_numpy(features).double() @ torch.from_numpy(weight).double().T, 1)
    bounds = [len(logs) * split // splits for split in range(splits + 1)]
    scores = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        part = logs[start:end]
        marginal = part.logsumexp(0) - np.log(len(part))  # log p(y) of the split
        scores.append(float(torch.exp((part.exp() * (part - marginal)).sum(1).mean())))
    return float(np.mean(scores)), float(np.std(scores))
