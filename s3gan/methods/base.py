"""What a method is: which label table it needs, which auxiliary heads D has, and where conditions come from.

A method does not depend on devices, ranks or networks. The losses and heads are shared; a method only supplies their
inputs. Sections are those of Lucic et al. 2019 (arXiv 1903.02271), the S3GAN paper.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.label_table import LabelTable


@dataclass(frozen=True)
class Method:
    """The shared part; a family of methods overrides what it does differently.

    `origins` are those of the label tables that fit; empty means that the method takes no table.
    """

    name: str
    origins: frozenset[str]
    advice: str  # how to make a table that fits
    heads: tuple[str, ...] = ()  # what D learns in addition to its score: names of `s3gan.auxiliary.AUXILIARY`
    projection: bool = True  # D's score depends on the class
    partial: bool = False  # the table may leave samples unlabelled
    reclusters: bool = False  # classes are clusters of D's features, computed again while it trains

    def check(self, table: LabelTable | None, samples: int) -> None:
        """Refuses a label table that does not fit.

        Args:
            table: what `labels=` named, or None.
            samples: in the training set.

        Raises:
            UserError: the table is missing, of another kind, or leaves samples unlabelled.
        """
        if table is None:
            raise UserError(f"method={self.name} needs labels=TABLE; {self.advice}")
        kind = str(table.metadata.get("method", "unknown"))
        strange = sorted(set(table.origin.tolist()) - self.origins)
        if strange:
            raise UserError(
                f"method={self.name} takes labels of origin {' or '.join(sorted(self.origins))}, but the label table "
                f"(made by {kind}) holds labels of origin {strange[0]}; {self.advice}"
            )
        if len(table) < samples and not self.partial:
            raise UserError(
                f"method={self.name} needs a label for every sample, but the label table (made by {kind}) covers "
                f"{len(table)} of {samples}; {self.advice}"
            )

    def class_names(self, table: LabelTable | None, classes: int) -> list[str]:
        """The condition classes, from the table; `classes` counts them where there is none."""
        assert table is not None
        return list(table.classes)

    def subset(self, labels: np.ndarray | None) -> np.ndarray | None:
        """The samples to train on, ascending int64, given the table's labels (samples,), -1 for none; None is all."""
        return None

    def fake_weights(self, counts: np.ndarray) -> np.ndarray | None:
        """The distribution (classes,) of the conditions of fakes, given the real labels' counts; None is uniform.

        A class without a single real image is left out: D could not learn what belongs to it.
        """
        return None if counts.all() else (counts > 0) / np.count_nonzero(counts)

    def real_labels(self, labels: Tensor, random: Callable[[], Tensor]) -> Tensor:
        """The conditions of real images, as the heads take them.

        Args:
            labels: (n,) int64 from the label table, -1 where there is none; or (n, classes) float32 soft labels.
            random: draws (n,) int64 uniformly from the classes, keyed by the batch's position.
        """
        return labels
