"""The keys of `s3gan.train`."""

from dataclasses import dataclass
from enum import Enum

from cluster_jobs.cli.config import MISSING, RollbackKeys, option
from cluster_jobs.core.errors import UserError
from s3gan.augmentation import AugmentationName
from s3gan.losses.adversarial import LossName
from s3gan.methods import METHODS, MethodName
from s3gan.networks import NetworkName

GRADIENT_PENALTIES = ("r1", "r2", "gradient_penalty")
WEIGHTS = (
    "rotation_weight_d",
    "rotation_weight_g",
    "prediction_weight",
    "lecam",
    "consistency",
    "orthogonal_g",
    "orthogonal_d",
)

# the origins of labels that are not all sure, and of those that come with probabilities: whom these keys are for
USERS = {"min_confidence": {"inferred", "cluster"}, "label_softness": {"inferred"}}


class FakeLabels(Enum):
    """How often each class is drawn for a fake."""

    method = "method"
    uniform = "uniform"
    table = "table"


class BestBy(Enum):
    """The score that says which checkpoint is best."""

    fd = "fd"
    kd = "kd"


@dataclass
class TrainConfig(RollbackKeys):
    """Trains a class-conditional GAN on shards, with the labels of a label table."""

    data: str = option(MISSING, "shards with the real images", path=True)
    labels: str = option("", "label table; single_label, random_label and self_conditioned need none", path=True)
    method: MethodName = option(MethodName["s3gan"], "where conditions come from, and which heads learn")
    classes: int = option(0, "random_label, self_conditioned without a table: number of classes")
    fake_labels: FakeLabels = option(
        FakeLabels.method, "classes of fakes: uniform, as often as in the table, or as the method has it"
    )
    min_confidence: float = option(
        0.0, "inferred labels or clusters that are less sure than this are taken for unknown"
    )
    label_softness: float = option(
        0.0, "share of an inferred label that the table's probabilities replace: 0 hard labels, 1 soft ones"
    )
    recluster_nimg: int = option(1_000_000, "self_conditioned: images between two re-clusterings; 0: never")
    recluster_count: int = option(
        50_000, "self_conditioned: images that the centroids of clusters are found on, at most"
    )
    network: NetworkName = option(NetworkName["biggan"], "family of the networks")
    width: int = option(
        32, "every layer has a multiple of so many channels (published: biggan 96, resnet_cifar 128, sndcgan 64)"
    )
    g_spectral_norm: bool = option(True, "spectral norm on the generator's weights")
    d_spectral_norm: bool = option(True, "spectral norm on the discriminator's weights")
    embedding_std: float = option(0.0, "spread of G's class vectors at the start; 0 is as published, and weak")
    d_steps: int = option(2, "discriminator steps a generator step")
    g_lr: float = option(2e-4, "generator's learning rate")
    d_lr: float = option(2e-4, "discriminator's learning rate")
    loss: LossName = option(LossName["hinge"], "adversarial loss")
    augment: AugmentationName = option(
        AugmentationName["none"], "what D sees instead of the images, real and fake alike"
    )
    r1: float = option(0.0, "weight of half the squared gradient of D at real images (the papers' gamma)")
    r2: float = option(0.0, "the same at fakes")
    gradient_penalty: float = option(0.0, "weight of WGAN-GP's penalty; the paper has 10, without d_spectral_norm")
    lecam: float = option(0.0, "weight of LeCam's pull towards the other side's average score")
    consistency: float = option(0.0, "weight of consistency under mirroring and shifts (CR); the paper has 10")
    orthogonal_g: float = option(0.0, "weight of orthogonal regularisation of G; BigGAN has 1e-4")
    orthogonal_d: float = option(0.0, "the same for D")
    beta1: float = option(0.0, "Adam's decay of the mean gradient")
    beta2: float = option(0.999, "Adam's decay of the mean squared gradient")
    ema_decay: float = option(0.999, "decay of the generator's average, a generator step")
    ema_start_nimg: int = option(0, "images seen before the average begins")
    rotated_batch_fraction: int = option(
        4, "batch / (4 * this) images are also shown turned, by 90, 180 and 270 degrees"
    )
    rotation_weight_d: float = option(1.0, "weight of the rotation loss of real images, for D")
    rotation_weight_g: float = option(0.2, "weight of the rotation loss of fakes, for G")
    prediction_weight: float = option(
        1.0, "co-trained methods: weight of the cross-entropy of labelled real images, for D"
    )
    soft_predictions: bool = option(
        False, "co-trained methods: condition on all probabilities, not the likeliest class"
    )
    eval_encoder: str = option(
        "",
        "encoder whose features score the run every eval_nimg images: run directory, safetensors or TorchScript file, "
        "which should have learnt from no hidden label; without one nothing is scored",
        path=True,
    )
    eval_count: int = option(5_000, "samples behind a score")
    eval_seeds: int = option(1, "sample seeds that a score is the mean of")
    best_by: BestBy = option(BestBy.fd, "the score that keep_best goes by: Frechet or kernel distance")
    hold_out: bool = option(
        False, "do not train on the validation part (5 %); else the scores cannot tell what was learnt by heart"
    )
    min_d_loss: float = option(0.01, "a loss/d from 0 to this is bad: D has won; 0: no limit")
    max_d_loss: float = option(100.0, "a loss/d beyond this, of either sign, is bad; inf: no limit")
    min_diversity: float = option(
        0.25, "fakes that vary less than this share of what real images do, pixel by pixel, are bad; 0: no limit"
    )

    def check(self) -> None:
        super().check()
        for name in ("width", "d_steps", "rotated_batch_fraction", "eval_seeds", "recluster_count"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive integer")
        for name in ("g_lr", "d_lr"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive number")
        for name in (
            *(*WEIGHTS, *GRADIENT_PENALTIES, "embedding_std"),
            *("min_d_loss", "max_d_loss", "min_diversity"),
        ):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}={getattr(self, name)}: expected a number of at least 0")
        if self.compile and any(getattr(self, name) for name in GRADIENT_PENALTIES):
            raise UserError(
                f"compile=true: a compiled network has no second derivatives; {', '.join(GRADIENT_PENALTIES)} need one"
            )
        if self.eval_count < 2:
            raise UserError(f"eval_count={self.eval_count}: expected at least 2 samples")
        if self.recluster_nimg < 0:
            raise UserError(f"recluster_nimg={self.recluster_nimg}: expected a positive integer, or 0 for never")
        for name in USERS:
            self._check_use(name)
        for name in ("beta1", "beta2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected a number in [0, 1)")
        method = METHODS[self.method.name]
        if not self.labels:
            method.check(None, 0)
            method.class_names(None, self.classes)
        divisor = 4 * self.rotated_batch_fraction
        if "rotation" in method.heads and self.batch % divisor:
            raise UserError(
                f"batch={self.batch} does not divide by 4 * rotated_batch_fraction = {divisor}: "
                "an image is shown in all four turns or not at all"
            )
        if self.turned % self.accumulate:
            raise UserError(f"accumulate={self.accumulate}: expected a divisor of the {self.turned} images to turn")

    def _check_use(self, name: str) -> None:
        """Refuses a share of labels that the method would not look at."""
        value, method = getattr(self, name), METHODS[self.method.name]
        if not 0 <= value <= 1:
            raise UserError(f"{name}={value}: expected a number from 0 to 1")
        if not value:
            return
        if method.reclusters:
            raise UserError(f"{name}={value}: method={method.name} forgets the table's labels")
        if not method.origins & USERS[name]:
            users = ", ".join(
                user.name for user in METHODS.values() if user.origins & USERS[name] and not user.reclusters
            )
            raise UserError(
                f"{name}={value}: method={method.name} has no use for it, because labels of origin "
                f"{' or '.join(sorted(method.origins))} are all sure; expected 0, or one of the methods {users}"
            )
        if not self.labels:
            raise UserError(f"{name}={value}: there is no label table to apply it to; give labels=TABLE")

    @property
    def turned(self) -> int:
        """Images of a global batch that are also shown turned."""
        return self.batch // (4 * self.rotated_batch_fraction) if "rotation" in METHODS[self.method.name].heads else 0
