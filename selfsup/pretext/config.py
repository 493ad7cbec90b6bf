"""The keys of ``selfsup.pretrain``."""

from dataclasses import dataclass
from enum import Enum

from cluster_jobs.cli.config import MISSING, TrainKeys, option
from cluster_jobs.core.errors import UserError
from selfsup.encoders.resnet import build_encoder
from selfsup.pretext import TASKS

Task = Enum("Task", list(TASKS))  # type: ignore[misc]


@dataclass
class PretrainConfig(TrainKeys):
    """Pretrains an encoder on a pretext task. 5 % of the images, chosen by their key, are held out to score it."""

    data: str = option(MISSING, "shard directory of the training images", path=True)
    task: Task = option(MISSING, "what to learn from unlabelled images")  # type: ignore[valid-type]
    encoder: str = option("resnet8", "residual network by name")
    width: int = option(32, "channels of its first stage")
    lr: float = option(2e-3, "learning rate of AdamW after the warm-up")
    weight_decay: float = option(0.05, "of kernels and matrices")
    warmup_nimg: int = option(2_000, "images over which the learning rate rises linearly")
    ema_nimg: int = option(
        10_000, "half-life of the moving average of the weights, in images; shorter in the beginning"
    )
    shift: int = option(2, "largest random translation in pixels")
    flip: bool = option(False, "random horizontal mirrors")
    relabel_nimg: int = option(50_000, "images between two relabellings, by a task that finds its targets itself")
    eval_count: int = option(5_000, "number of held-out images to score, at most")

    def check(self) -> None:
        """Raises UserError for a value outside its range, as far as that is known before any input exists."""
        super().check()
        build_encoder(self.encoder, 1, self.width)
        for name in ("shift", "warmup_nimg", "weight_decay"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)}: expected a number of at least 0")
        for name in ("ema_nimg", "eval_count", "relabel_nimg"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected a number of at least 1")
        if not self.lr > 0:
            raise UserError(f"lr={self.lr}: expected a positive number")
