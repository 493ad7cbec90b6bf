"""Baselines whose class conditions carry no information: one class for all, or random classes (section 4)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.label_table import LabelTable
from s3gan.methods.base import Method


@dataclass(frozen=True)
class SingleLabel(Method):
    """Every image has the same condition. A table of `selfsup.label method=single` is welcome, but not needed."""

    def check(self, table: LabelTable | None, samples: int) -> None:
        if table is not None:
            super().check(table, samples)

    def class_names(self, table: LabelTable | None, classes: int) -> list[str]:
        return ["all"] if table is None else list(table.classes)

    def real_labels(self, labels: Tensor, random: Callable[[], Tensor]) -> Tensor:
        return torch.zeros_like(labels)


@dataclass(frozen=True)
class RandomLabel(Method):
    """Without a table every image gets a fresh random condition each time it is seen, as in the paper; with a table of
    `selfsup.label method=random` it keeps the same one."""

    def check(self, table: LabelTable | None, samples: int) -> None:
        if table is not None:
            super().check(table, samples)

    def class_names(self, table: LabelTable | None, classes: int) -> list[str]:
        if table is not None:
            return list(table.classes)
        if classes < 1:
            raise UserError(f"classes={classes}: method={self.name} without labels= needs a number of random classes")
        return [str(number) for number in range(classes)]

    def real_labels(self, labels: Tensor, random: Callable[[], Tensor]) -> Tensor:
        return torch.where(labels < 0, random(), labels)


_NO_TABLE = "leave labels= out, or use selfsup.label method="
_SINGLE, _RANDOM = frozenset({"single"}), frozenset({"random"})
single_label = SingleLabel("single_label", origins=_SINGLE, advice=f"{_NO_TABLE}single")
single_label_ss = SingleLabel("single_label_ss", origins=_SINGLE, advice=f"{_NO_TABLE}single", heads=("rotation",))
# SSGAN (Chen et al. 2019): unconditional, so D has no projection; what G's one class adds is a learned constant
ssgan = SingleLabel("ssgan", origins=_SINGLE, advice=f"{_NO_TABLE}single", heads=("rotation",), projection=False)
random_label = RandomLabel("random_label", origins=_RANDOM, advice=f"{_NO_TABLE}random")
