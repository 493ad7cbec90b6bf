"""Augmentations of all images that the discriminator sees, by name: one file per family, one table entry per name."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from s3gan.augmentation.ada import AdaptiveAugmentation
from s3gan.augmentation.base import Augmentation, NoAugmentation
from s3gan.augmentation.diffaugment import DiffAugment


@dataclass(frozen=True)
class Setting:
    """What an augmentation must know of its run."""

    batch: int  # global: real images of a discriminator step
    rotation: bool  # D also predicts by how many quarter turns an image is rotated


AUGMENTATIONS: dict[str, Callable[[Setting], Augmentation]] = {
    "none": lambda setting: NoAugmentation(),
    "diffaugment": lambda setting: DiffAugment(),
    "ada": lambda setting: AdaptiveAugmentation(setting.batch, turning=not setting.rotation),
}
AugmentationName = Enum("AugmentationName", {name: name for name in AUGMENTATIONS})  # type: ignore[misc]  # of the key

__all__ = ["AUGMENTATIONS", "Augmentation", "AugmentationName", "Setting"]
