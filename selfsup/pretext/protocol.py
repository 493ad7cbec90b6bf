"""The interface of a pretext task: how pictures become views, what learns from them, and how that is scored.

To add a task, write a file with a `PretextTask` and enter it in `selfsup.pretext.TASKS`; `rotation.py` is the simplest
one. `tests/selfsup/pretext/toy_tasks.py` has a small example of each thing that a task may do besides.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cluster_jobs.training.optimizer_step import Metrics
from selfsup.encoders.resnet import Encoder
from selfsup.pretext.draws import Draws

Views = tuple[Tensor, ...]


@dataclass(frozen=True)
class Gather:
    """Joins what the ranks have of one micro-batch, so that a loss depends on the pictures of all ranks.

    Without gradient accumulation that is the global batch, in its order. With it, a contrastive loss has fewer
    negatives. Every rank must call it equally often, with tensors of equal shapes.

    Attributes:
        join: the ranks' tensors (n, ...) joined along the first axis in rank order; gradients flow through.
        rank: of this process.
    """

    join: Callable[[Tensor], Tensor] = torch.clone
    rank: int = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        """The tensors (n, ...) of all ranks: (n * ranks, ...). Gradients flow through it."""
        return self.join(tensor)

    def own(self, count: int) -> slice:
        """Which entries of the joined tensor are this rank's own `count`."""
        return slice(self.rank * count, (self.rank + 1) * count)


class TaskLosses(NamedTuple):
    """The losses of N pictures of this rank, whose mean an optimizer step lowers.

    Attributes:
        per_picture: (N,) float32.
        metrics: scalars to log, by name. Steps of one task name them differently.
        kept: tensors for `PretextTask.after_step`; it gets them without gradients.
    """

    per_picture: Tensor
    metrics: Metrics
    kept: Views = ()


class PretextModule(nn.Module):
    """All modules of a task that are trained or are moving averages of trained ones: encoder, heads, momentum copies.

    The encoder is a child module by that name: other commands read it from a run's checkpoints. Parameters that no
    optimizer may touch (momentum copies) ask for no gradients. Buffers (queues, centres) are part of checkpoints. The
    moving average that is scored and saved averages parameters and floating-point buffers: in it a queue holds averages
    of what the queue has held.
    """

    encoder: Encoder


@dataclass(frozen=True)
class OptimizerStep:
    """One of the optimizer steps that make up a training step.

    Attributes:
        name: of its optimizer; in checkpoints it is "optimizer_NAME", and "optimizer" without a name.
        network: whose parameters it trains, as far as they ask for gradients. Networks of several steps share none;
            `PretextTask.steps` may make it out of parts of the module.
        losses: from the network as the run prepared it (distributed data parallel over several ranks), views and a
            gather to `TaskLosses`. It calls this network once, so that all its parameters take part, and networks of
            other steps, whose parameters then ask for no gradients, as parts of the module.
        lr_factor: of the learning rate ``lr``, for this optimizer.
        betas: of AdamW, both floats.
    """

    name: str
    network: nn.Module
    losses: Callable[[nn.Module, Views, Gather], TaskLosses]
    lr_factor: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)


class PretextTask(ABC):
    """A way to learn from pictures without labels. One file per task, and an entry in `selfsup.pretext.TASKS`.

    A task holds no weights: `module` makes them and pretraining owns them. All randomness of `views` comes from the
    draws that it is handed; losses draw nothing. A loss does not depend on ranks, except through `Gather`.

    A training step is: `targets` if they are due, `views`, the losses and optimizer of each of the `steps`,
    `after_step`, and a step of the moving average of the module.

    Attributes:
        measured: names of the `measures` of held-out pictures.
        score: the one of them by which checkpoints are compared.
        higher_is_better: its direction.
        caption: one sentence of what `sheet` shows.
        chance: the score of guessing; None where there is no such number.
        relabels: whether training targets come from `targets`, computed again every `relabel_nimg` images.
    """

    measured: tuple[str, ...]
    score: str
    higher_is_better: bool
    caption: str
    chance: float | None = None
    relabels: bool = False

    @abstractmethod
    def module(self, encoder: Encoder) -> PretextModule:
        """The module around an encoder, with initial weights that no global random state decides."""

    @abstractmethod
    def views(self, images: Tensor, draws: Draws, targets: Tensor | None = None) -> Views:
        """Pictures (N, C, H, W) float32 in [-1, 1] to the tensors that losses take.

        Each is in blocks of N: entry number j belongs to picture j mod N, so that micro-batches hold whole pictures.

        Args:
            draws: for these N pictures.
            targets: (N,) int64 of a task that relabels; None for held-out pictures, which have none.
        """

    @abstractmethod
    def measures(self, module: PretextModule, views: Views) -> Sequence[Tensor]:
        """What `measured` names, (N,) float32 each of N held-out pictures; means over all pictures are recorded.

        A picture's measures do not depend on the others: how pictures are cut into batches changes no score.
        """

    @abstractmethod
    def sheet(self, module: PretextModule, images: Tensor, views: Views) -> tuple[np.ndarray, int]:
        """What the module makes of uint8 pictures (N, C, H, W): tiles uint8 (K, C, h, w), and columns of a grid."""

    def losses(self, network: nn.Module, views: Views, gather: Gather) -> TaskLosses:
        """The losses of N pictures by the module, as the run prepared it. Tasks with `steps` of their own need none."""
        raise NotImplementedError(f"{type(self).__name__} has no losses")

    def steps(self, module: PretextModule) -> Sequence[OptimizerStep]:
        """The optimizer steps of a training step, in their order; by default one over the whole module."""
        return [OptimizerStep("", module, self.losses)]

    def after_step(  # noqa: B027 (few tasks need it)
        self, module: PretextModule, kept: Views, gather: Gather, nimg: int
    ) -> None:
        """Moves what no optimizer moves, without gradients: queues, momentum copies, centres.

        It moves them in place. Where there are kept tensors and the optimizer step was skipped, because a gradient was
        not finite, what this did to buffers and to parameters that ask for no gradients is undone.

        Args:
            kept: what the losses of the last optimizer step kept, its micro-batches joined along the first axis.
            nimg: images seen with this step, for schedules of a momentum.
        """

    def targets(self, features: np.ndarray, seed: int) -> np.ndarray:
        """New targets (n,) int32 from the features (n, F) float32 of all training pictures.

        Called on the main rank, before the first step and then every `relabel_nimg` images. The result is a function of
        the arguments alone.
        """
        raise NotImplementedError(f"{type(self).__name__} has no targets of its own")

    def relabelled(self, module: PretextModule, seed: int) -> None:  # noqa: B027 (few tasks need it)
        """Called on every rank after new targets have replaced old ones, for example to draw a new classifier.

        It changes the module in place, equally on all ranks: as a function of the seed and of the module.
        """
