"""What a pretext task is to pretraining: how pictures become views, what learns from them, and how that is scored."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from cluster_jobs.training.optimizer_step import Metrics
from selfsup.encoders.resnet import Encoder

Views = tuple[Tensor, ...]
Gather = Callable[[Tensor], Tensor]


class TaskLosses(NamedTuple):
    """The losses of N pictures (N,) float32, metrics (scalars), and tensors to hand to `PretextTask.after_step`."""

    per_picture: Tensor
    metrics: Metrics
    kept: Views = ()


class PretextModule(nn.Module):
    """All that learns or follows in a task: the encoder, heads, decoders, momentum copies.

    Parameters that no optimizer may touch (momentum copies) ask for no gradients. Buffers (queues, centres) are part of
    checkpoints.
    """

    encoder: Encoder


@dataclass(frozen=True)
class OptimizerStep:
    """One of the optimizer steps that make up a training step.

    Attributes:
        name: of its optimizer; in checkpoints it is "optimizer_NAME", and "optimizer" without a name.
        network: whose parameters it trains, as far as they ask for gradients. Networks of several steps share none.
        losses: from the network as the run prepared it, views and a gather to `TaskLosses`.
    """

    name: str
    network: nn.Module
    losses: Callable[[nn.Module, Views, Gather], TaskLosses]


class PretextTask(ABC):
    """A way to learn from pictures without labels. One file a task, and an entry in `selfsup.pretext.TASKS`.

    A task holds no weights: `module` makes them and pretraining owns them. All randomness comes from the seed that
    `views` is handed. A loss knows no ranks: `gather` joins the ranks' tensors (n, ...) of equal n to (n * ranks, ...)
    in the order of the global batch, and gradients flow through it. With gradient accumulation it joins the ranks'
    parts of one micro-batch, so that a contrastive loss has fewer negatives.

    Attributes:
        measured: names of the `measures` of held-out pictures.
        score: the one of them by which checkpoints are compared.
        higher_is_better: its direction.
        chance: the score of guessing; None where there is no such number.
        relabels: whether training targets come from `targets`, found anew every `relabel_nimg` images.
    """

    measured: tuple[str, ...]
    score: str
    higher_is_better: bool
    chance: float | None = None
    relabels: bool = False

    @abstractmethod
    def module(self, encoder: Encoder) -> PretextModule:
        """The module around an encoder, with initial weights that no global random state decides."""

    @abstractmethod
    def views(self, images: Tensor, *seed: int | str, targets: Tensor | None = None) -> Views:
        """Pictures (N, C, H, W) float32 in [-1, 1] to the tensors that losses take.

        Each is in blocks of N: entry number j belongs to picture j mod N, so that micro-batches hold whole pictures.

        Args:
            seed: of all random draws.
            targets: (N,) int64 of a task that relabels.
        """

    @abstractmethod
    def losses(self, network: nn.Module, views: Views, gather: Gather) -> TaskLosses:
        """The losses of N pictures by the module, as the run prepared it."""

    @abstractmethod
    def measures(self, module: PretextModule, views: Views) -> Sequence[Tensor]:
        """What `measured` names, (N,) float32 each of N held-out pictures; means over all pictures are recorded."""

    @abstractmethod
    def sheet(self, module: PretextModule, images: Tensor, views: Views) -> tuple[np.ndarray, int]:
        """What the module makes of uint8 pictures (N, C, H, W): tiles uint8 (K, C, h, w), and columns of a grid."""

    def steps(self, module: PretextModule) -> Sequence[OptimizerStep]:
        """The optimizer steps of a training step, in their order; by default one over the whole module."""
        return [OptimizerStep("", module, self.losses)]

    def after_step(self, module: PretextModule, kept: Views, gather: Gather) -> None:  # noqa: B027 (few tasks need it)
        """Moves what no optimizer moves, without gradients: queues, momentum copies, centres.

        Args:
            kept: what the losses of the last optimizer step kept, its micro-batches joined along the first axis.
        """

    def targets(self, features: np.ndarray, seed: int) -> np.ndarray:
        """New targets (n,) int32 from the features (n, F) float32 of all training pictures. Called on the main rank."""
        raise NotImplementedError(f"{type(self).__name__} has no targets of its own")
