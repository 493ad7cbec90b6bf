"""Converts the λ of public SimGAN implementations, which reduce the loss terms otherwise, to that of ``losses.py``."""

from dataclasses import dataclass


def equivalent_weight(
    weight: float, *, patches: int, pixels: int, adversarial: str, change: str, batch: int = 1
) -> float:
    """The λ of ``losses.py`` that balances the two terms as ``weight`` does in other code.

    Args:
        adversarial: how that code reduces its adversarial term over the patches of an image: ``"sum"`` or ``"mean"``.
        change: how it reduces ‖R(x) - x‖₁: ``"sum"`` over pixels, ``"mean"`` over pixels, or ``"batch_sum"`` over the
            pixels of the whole batch of ``batch`` images while the adversarial term is averaged over images.

    Raises:
        ValueError: another reduction.
    """
    if adversarial not in ("sum", "mean") or change not in ("sum", "mean", "batch_sum"):
        raise ValueError(f"adversarial={adversarial!r}, change={change!r}: expected sum|mean and sum|mean|batch_sum")
    weight *= {"sum": 1.0, "mean": 1 / pixels, "batch_sum": float(batch)}[change]
    return weight * (patches if adversarial == "mean" else 1)


@dataclass(frozen=True)
class Published:
    """The weight of a public implementation, and how its code reduces the two terms (see :func:`equivalent_weight`)."""

    weight: float
    adversarial: str
    change: str
    batch: int = 1

    def here(self, *, patches: int = 126, pixels: int = 35 * 55) -> float:
        """The equivalent λ of ``losses.py``; by default for the gaze networks at 35 × 55 pixels."""
        kinds = {"adversarial": self.adversarial, "change": self.change}
        return equivalent_weight(self.weight, patches=patches, pixels=pixels, batch=self.batch, **kinds)


# Read from the repositories' code (images in [-1, 1] too). None of them states the λ that the paper used.
PUBLISHED: dict[str, Published] = {
    "carpedm20": Published(0.5, "sum", "sum"),  # simulated-unsupervised-tensorflow: reg_scale
    "mjdietzx": Published(1e-4, "mean", "batch_sum", batch=512),  # SimGAN: delta; refined equals synthetic
    "daniel_merrick": Published(0.5, "mean", "mean"),  # …-SimGAN-PyTorch: delta with nn.L1Loss
    "daniel_merrick_readme": Published(0.75, "mean", "mean"),  # the run that its README shows
    "shinseung428": Published(0.1, "sum", "sum"),  # simGAN_NYU_Hand, a fork of carpedm20's code, on hands
}
