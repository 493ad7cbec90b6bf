"""The keys of ``simgan.train``."""

from dataclasses import dataclass
from enum import Enum

from cluster_jobs.cli.config import MISSING, RollbackKeys, option
from cluster_jobs.core.errors import UserError
from simgan.tasks import TaskName
from simgan.training.psi import PsiName


class Patches(Enum):
    """The values of the key ``patches``."""

    gaze = "gaze"
    hand = "hand"


class DiscriminatorName(Enum):
    """The values of the key ``discriminator``."""

    patch = "patch"
    image = "image"


class ScheduleName(Enum):
    """The values of the key ``schedule``."""

    fixed = "fixed"
    auto = "auto"


@dataclass
class RefinerTrainConfig(RollbackKeys):
    """Trains a refiner R that makes synthetic images look real, against a patch discriminator D (SimGAN).

    A step updates R or D on one batch. *_nimg counts synthetic images: every step draws a batch of them.
    Defaults are those of task=digits; the paper's gaze refiner is width=64 fold=1.
    """

    task: TaskName = option(
        TaskName.digits, "digits: printed → handwritten; gaze: eyes; hand: depth of hands; folder: any images"
    )
    synthetic: str = option(MISSING, "shards of simulated images", path=True)
    real: str = option(MISSING, "shards of real images; their labels are not read", path=True)
    batch: int = option(32, "synthetic images per step, and real ones per step of D, over all processes; even on each")
    total_nimg: int = option(40_000, "synthetic images to see in all; may grow when a run is continued")
    checkpoint_nimg: int = option(8_000, "images between two checkpoints")
    sample_nimg: int = option(8_000, "images between two sample sheets")
    eval_nimg: int = option(8_000, "images between two scores on the validation part of both domains")
    eval_encoder: str = option(
        "", "whose features the scores compare: a run of selfsup.pretrain or a file; empty: random weights", path=True
    )
    eval_count: int = option(2_000, "validation images of each domain behind a score, at most; 0: no scores")
    warm_refiner_nimg: int = option(320, "images of the warm-up of R alone, on self-regularisation")
    warm_discriminator_nimg: int = option(1_280, "images of the warm-up of D alone, after that of R")
    schedule: ScheduleName = option(
        ScheduleName.fixed, "fixed: k_g and k_d; auto: k_d stays 1, k_g moves by one to keep loss/d within a band"
    )
    k_g: int = option(2, "steps of R per round; raise it if D is too strong; auto begins with it")
    k_d: int = option(1, "steps of D per round")
    d_loss_low: float = option(
        0.3, "auto: k_g rises by 1 at every logged line whose loss/d (nats per patch; chance is 0.69) is lower"
    )
    d_loss_high: float = option(0.6, "auto: k_g falls by 1 at every logged line whose loss/d is higher")
    max_k_g: int = option(50, "auto: the largest k_g", formerly="most_k_g")
    regularisation: float = option(
        0.05, "λ: adversarial summed over patches + λ · |change| summed over pixels in [-1, 1]"
    )
    psi: PsiName = option(
        PsiName.identity,
        "what |change| compares: the image, its gradient, its colour_mean, or an encoder's features; the mean over its "
        "entries counts as often as there are pixels and channels",
    )
    psi_encoder: str = option(
        "", "psi=encoder: a run of selfsup.pretrain, a safetensors or TorchScript file", path=True
    )
    history: int = option(
        2_000, "refined images in the history, over all processes; at least half a batch; 0: no history"
    )
    lr_r: float = option(1e-3, "learning rate of R (Adam)")
    lr_d: float = option(1e-3, "learning rate of D (Adam)")
    beta1: float = option(0.5, "Adam's decay of the first moment, for both")
    ema_nimg: int = option(4_000, "half-life, in images, of the moving average of R that is used to refine; 0: none")
    width: int = option(32, "feature maps of R")
    blocks: int = option(4, "residual blocks of R")
    stem: int = option(3, "kernel of R's first convolution, odd")
    fold: int = option(2, "R takes fold × fold pixels as channels: sees fold times as far for 1 / fold² of the work")
    noise: int = option(
        0, "channels of noise, a hash of the image, that R gets in addition to the image; 0: as published"
    )
    patches: Patches = option(Patches.gaze, "layers of D: the paper's for gaze (sees 23 pixels) or for hand pose (71)")
    discriminator: DiscriminatorName = option(
        DiscriminatorName.patch,
        "patch: one logit per patch; image: one per image (an ablation; it needs λ divided by the number of patches)",
        formerly="verdict",
        former_values={"local": "patch", "global": "image"},
    )
    health_nimg: int = option(
        0,
        "images over which every line of metrics must be bad (or good) to decide, three lines and rounds at least; "
        "0: as many as checkpoint_nimg, and 100 steps at least",
    )
    min_d_loss: float = option(0.001, "loss/d (nats per patch) below this is a problem: D is too strong; 0: no limit")
    min_diversity: float = option(
        0.25, "diversity of refined images below this share of that of simulated ones is a problem; 0: no limit"
    )
    max_change: float = option(
        0.6,
        "warns if R changes a pixel of [-1, 1] by more on average: labels may not survive. The default is for "
        "digits, whose domains lie far apart; inf: never",
    )

    def check(self) -> None:
        """Raises UserError for a number outside its range."""
        super().check()
        for name in ("k_g", "k_d", "max_k_g", "width", "fold"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive integer")
        for name in (
            *("warm_refiner_nimg", "warm_discriminator_nimg", "regularisation", "blocks", "ema_nimg", "d_loss_low"),
            *("history", "noise", "min_d_loss", "min_diversity", "max_change", "eval_count"),
        ):
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
        if 0 < self.history < self.batch // 2:
            raise UserError(f"history={self.history}: expected at least half a batch, {self.batch // 2}, or 0 for none")
        if not self.d_loss_low < self.d_loss_high:
            raise UserError(f"d_loss_low={self.d_loss_low}: expected less than d_loss_high={self.d_loss_high}")
        if self.schedule is ScheduleName.auto and (self.k_d != 1 or self.k_g > self.max_k_g):
            raise UserError(
                f"k_g={self.k_g} k_d={self.k_d}: schedule=auto expects k_d=1 and k_g up to max_k_g={self.max_k_g}"
            )
        if self.schedule is ScheduleName.auto and self.rebatch:
            raise UserError("rebatch=true: expected false with schedule=auto, whose rounds count steps of one batch")
        if (self.psi is PsiName.encoder) != bool(self.psi_encoder):
            raise UserError(
                f"psi={self.psi.name} psi_encoder={self.psi_encoder!r}: psi=encoder takes psi_encoder=PATH, others none"
            )

    @property
    def health_window(self) -> int:
        """As for every run, but at least three rounds of the schedule."""
        rounds = 3 * (max(self.k_g, self.max_k_g) if self.schedule is ScheduleName.auto else self.k_g) + 3 * self.k_d
        return max(super().health_window, rounds * self.batch)
