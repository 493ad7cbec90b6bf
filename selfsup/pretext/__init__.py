"""Pretext tasks: what an encoder learns from pictures without labels. One file a task; `TASKS` names them.

A task turns pictures into examples with answers. It holds no weights: `heads` makes them, and the entry point owns
them. All randomness comes from the key it is handed.
"""

from typing import Protocol

import numpy as np
from torch import Tensor, nn

from selfsup.encoders.resnet import Encoder
from selfsup.pretext.rotation import RotationTask


class PretextTask(Protocol):
    """What selfsup.pretrain asks of a task, for N pictures that give M examples each."""

    chance: float  # accuracy of guessing

    def heads(self, num_features: int) -> nn.Module:
        """What maps features of the examples to `outputs`."""

    def examples(self, images: Tensor, *key: int | str) -> tuple[Tensor, Tensor]:
        """Pictures (N, C, H, W) -> the encoder's inputs (N·M, ...), and the answers (N·M,).

        In blocks of N: example number j shows picture j mod N, so that micro-batches hold whole pictures.
        """

    def losses(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """The loss of each picture, (N,)."""

    def correct(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """The share of each picture's examples that are answered rightly, (N,) float32 in [0, 1]."""

    def sheet(self, images: Tensor, outputs: Tensor) -> tuple[np.ndarray, int]:
        """Examples of uint8 pictures (N, C, H, W) beside what was answered: tiles uint8 (K, C, h, w), and columns."""


class PretextModel(nn.Module):
    """An encoder under the heads of a task: the module that learns."""

    def __init__(self, encoder: Encoder, heads: nn.Module) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, heads

    def forward(self, inputs: Tensor) -> Tensor:
        """What the heads make of a task's inputs."""
        return self.heads(self.encoder(inputs))


TASKS: dict[str, type[PretextTask]] = {"rotation": RotationTask}
