"""How estimators are trained: the keys ``estimator.*`` of ``simgan.evaluate``."""

from dataclasses import dataclass

from cluster_jobs.cli.config import option
from cluster_jobs.core.errors import UserError


@dataclass
class EstimatorRecipe:
    """The one recipe of all estimators, whatever they are trained on. width=1 is the paper's network."""

    width: float = option(0.25, "channels, as a multiple of the paper's")
    steps: int = option(1_500, "optimizer steps")
    batch: int = option(128, "images per step")
    augment: bool = option(False, "gaze: randomly change light, sharpness and noise of training images")
    lr: float = option(1e-3, "highest learning rate of Adam; a cosine leads to zero")

    def check(self) -> None:
        """Raises UserError for a value outside its range."""
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"estimator.{name}={getattr(self, name)}: expected a positive integer")
        for name in ("width", "lr"):
            if not getattr(self, name) > 0:
                raise UserError(f"estimator.{name}={getattr(self, name)}: expected a positive number")
