"""The keys of `s3gan.evaluate`."""

from dataclasses import dataclass
from enum import Enum

from cluster_jobs.cli.config import MISSING, CommandKeys, group, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.data.stores.base import is_remote
from s3gan.inference.sampling import Balance
from s3gan.metrics.detector import DetectorName
from selfsup.labelling.classifier import ClassifierRecipe


class Split(Enum):
    train = "train"
    test = "test"


@dataclass
class EvaluateConfig(CommandKeys):
    """Scores generated images: distances on a detector's features, and classifiers trained on them."""

    data: str = option(MISSING, "directory with the real images: train and test", path=True)
    run: str = option("", "run directory of s3gan.train, whose generator draws the images", path=True)
    pool: str = option("", "or the pool to score", path=True)
    out: str = option("", "where scores.json goes; RUN/evaluation or POOL/evaluation by default", path=True)
    cache: str = option("", "detectors and classifiers to share between evaluations; OUT/cache by default", path=True)
    count: int = option(
        10_000, "generated images: behind a distance; of a run, also those that its classifier trains on"
    )
    balance: Balance = option(Balance.table, "run: classes as often as in its label table, or equally often")
    truncation: float = option(0.0, "run: cut the noise off at this absolute value; 0 cuts nothing off")
    checkpoint: str = option("last", "run: last, best, or the path of a checkpoint", path=True)
    checkpoints: int = option(1, "run: the mean over so many of its checkpoints, the newest up to `checkpoint`")
    sample_seeds: int = option(
        1, "run: the mean over so many sample seeds, from `seed` on, with its standard deviation"
    )
    reference: Split = option(Split.test, "real images that distances are measured to; the floor is that of the others")
    detector: DetectorName = option(DetectorName.classifier, "on whose features; classifier: of the training images")
    detector_weights: str = option("", "its file; encoder: also a run directory of selfsup.pretrain", path=True)
    prdc: bool = option(True, "precision, recall, density and coverage")
    intra: bool = option(True, "Frechet distances within classes")
    intra_count: int = option(0, "images of a class on each side of them; 0: as many as the smallest class has")
    memorisation: int = option(
        100_000, "training images among which the nearest are looked for, at most; 0: not at all"
    )
    cas: bool = option(True, "train classifiers on the images and on real ones, and test them on real test images")
    budget: str = option(
        "", "label table of the revealed labels; by default those that the run's table holds", path=True
    )
    classifier: ClassifierRecipe = group(ClassifierRecipe, "how detector and classifiers are trained")

    def check(self) -> None:
        """Raises UserError for what can be known before any input exists."""
        super().check()
        if bool(self.run) == bool(self.pool):
            raise UserError(f"run={self.run!r} pool={self.pool!r}: expected one of the two")
        if is_remote(self.pool) and not self.out:
            raise UserError(f"pool={self.pool}: scores are written to this machine, give out=DIRECTORY")
        if self.count < 2:
            raise UserError(f"count={self.count}: expected at least 2 images")
        if self.truncation < 0:
            raise UserError(f"truncation={self.truncation}: expected 0 (none) or a positive number")
        for name, least in (("checkpoints", 1), ("sample_seeds", 1), ("intra_count", 0), ("memorisation", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: expected {least} or more")
        if self.pool and (self.checkpoints, self.sample_seeds) != (1, 1):
            raise UserError("checkpoints= and sample_seeds= are of a run; the images of a pool are drawn already")
        if (self.detector is DetectorName.classifier) == bool(self.detector_weights):
            raise UserError(
                f"detector={self.detector.name} detector_weights={self.detector_weights!r}: expected weights with any "
                "detector but classifier, which is trained here"
            )
        self.classifier.check()

    @property
    def suffix(self) -> str:
        """Marks results on another detector than the default one, in scores.json and in the report."""
        return "" if self.detector is DetectorName.classifier else f"_{self.detector.name}"
