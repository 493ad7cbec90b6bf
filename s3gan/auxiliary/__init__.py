"""Auxiliary heads: what D learns in addition to its score, by name. One file per head, one table entry per name.

A method names its heads (`Method.heads`). Their losses are computed and added in the order of this table.
"""

from collections.abc import Callable
from typing import Any

from s3gan.auxiliary.base import AuxiliaryHead
from s3gan.auxiliary.prediction import Prediction
from s3gan.auxiliary.rotation import Rotation

AUXILIARY: dict[str, Callable[[Any, int], AuxiliaryHead]] = {  # (keys of s3gan.train, number of ranks) -> head
    "rotation": Rotation.of,
    "predictor": Prediction.of,
}

__all__ = ["AUXILIARY", "AuxiliaryHead"]
