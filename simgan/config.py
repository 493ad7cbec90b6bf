"""The keys of ``simgan.train``."""

from dataclasses import dataclass
from enum import Enum

from cluster_jobs.config import MISSING, TrainKeys, key
from cluster_jobs.errors import UserError
from simgan.tasks import TaskName


class Patches(Enum):
    gaze = "gaze"
    hand = "hand"


@dataclass
class TrainConfig(TrainKeys):
    """Trains a refiner R that makes synthetic images look real, against a local discriminator D (SimGAN).

    A step updates R or D on one batch. *_nimg counts synthetic images drawn by R, which draws a batch at every step.
    Defaults are those of task=digits; the paper's gaze refiner is width=64 fold=1.
    """

    task: TaskName = key(TaskName.digits, "what is simulated: digits (printed → handwritten)")
    synthetic: str = key(MISSING, "shards of simulated images", path=True)
    real: str = key(MISSING, "shards of real images; their labels are not read", path=True)
    batch: int = key(32, "synthetic images a step, and real ones at a step of D, over all processes; even on each")
    total_nimg: int = key(40_000, "synthetic images to see in all; may grow when a run is continued")
    checkpoint_nimg: int = key(8_000, "images between two checkpoints")
    sample_nimg: int = key(8_000, "images between two sample pictures")
    eval_nimg: int = key(50_000, "no effect here: simgan.evaluate scores a run afterwards")
    warm_refiner_nimg: int = key(320, "images of the warm-up of R alone, on self-regularisation")
    warm_discriminator_nimg: int = key(1_280, "images of the warm-up of D alone, after that of R")
    k_g: int = key(2, "steps of R a round; raise it where D is too strong")
    k_d: int = key(1, "steps of D a round")
    regularisation: float = key(0.05, "λ: adversarial summed over patches + λ · |change| summed over pixels in [-1, 1]")
    history: int = key(2_000, "refined images kept for D; at least half a batch")
    lr_r: float = key(1e-3, "learning rate of R (Adam)")
    lr_d: float = key(1e-3, "learning rate of D (Adam)")
    beta1: float = key(0.5, "Adam's decay of the first moment, for both")
    ema_nimg: int = key(4_000, "half-life, in images, of the average of R's weights that refines; 0: R as it is")
    width: int = key(32, "feature maps of R")
    blocks: int = key(4, "residual blocks of R")
    stem: int = key(3, "kernel of R's first convolution, odd")
    fold: int = key(2, "R works on fold × fold pixels as channels: sees fold times as far for 1 / fold² of the work")
    patches: Patches = key(Patches.gaze, "layers of D: the paper's for gaze (sees 23 pixels) or for hand pose (71)")

    def check(self) -> None:
        """Raises UserError for a number outside its range."""
        super().check()
        for name in ("k_g", "k_d", "width", "fold", "history"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive integer")
        for name in ("warm_refiner_nimg", "warm_discriminator_nimg", "regularisation", "blocks", "ema_nimg"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}={getattr(self, name)}: expected no negative number")
        for name in ("lr_r", "lr_d"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive number")
        if not 0 <= self.beta1 < 1:
            raise UserError(f"beta1={self.beta1}: expected at least 0 and below 1")
        if self.stem < 1 or self.stem % 2 == 0:
            raise UserError(f"stem={self.stem}: expected an odd kernel")
        if self.batch % 2:
            raise UserError(f"batch={self.batch}: expected an even number, half of it goes through the history")
        if self.history < self.batch // 2:
            raise UserError(f"history={self.history}: expected at least half a batch, {self.batch // 2}")
