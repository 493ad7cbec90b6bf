"""Auxiliary heads: what the discriminator learns beside its score, by name. One file a head, one line a name.

A method names the heads that learn (`Method.heads`). They learn, and weigh in, in the order of this table.
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
