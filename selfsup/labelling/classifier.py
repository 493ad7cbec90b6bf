"""Trains classifiers from few labels: cross-entropy on labelled images plus a rotation loss on all images.

S4L-Rotation (Zhai et al. 2019, equation 1): L = CE(labelled) + w · rotation(all images). With ``rotation_weight`` 0
it is plain supervised training, as for detectors and the classification accuracy score.

Every rank trains the same classifier and then takes rank 0's weights: scores and label tables do not depend on the
number of processes, and ranks cannot drift apart.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cluster_jobs.cli.config import option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.seeds import derive_seed
from cluster_jobs.data.images import to_float
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Reader, permute
from cluster_jobs.distributed.job import Job
from selfsup.encoders.loading import CLASSIFIER_FILE, read_network, rebuild, save_network
from selfsup.encoders.resnet import Encoder, build_encoder, initialise
from selfsup.pretext import augment
from selfsup.pretext.rotation import rotate_all, rotation_head, rotation_losses

CLASSIFIER_SUFFIX = ".classifier.safetensors"  # of the classifier that belongs to a label table


class Pictures(Protocol):
    """Pictures by index: a uint8 array, tensor or memory map (N, C, H, W), or `ShardPictures`, which stay on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> Any:
        """The images at int64 indices (n,): uint8 (n, C, H, W)."""


class ShardPictures:
    """The images of shards, or of the samples at ``indices``, decoded on access."""

    def __init__(self, shards: Shards, indices: np.ndarray | None = None, damaged: str = "fatal") -> None:
        self.indices = np.arange(len(shards)) if indices is None else indices
        self._reader = Reader(shards, damaged)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, indices: np.ndarray) -> Tensor:
        return self._reader.read(self.indices[indices], 0).images


@dataclass
class ClassifierRecipe:
    """How a classifier is trained. A given encoder overrides ``encoder`` and ``width``."""

    encoder: str = option("resnet8", "residual network by name")
    width: int = option(32, "channels of its first stage")
    steps: int = option(1500, "optimizer steps")
    batch: int = option(128, "labelled images per step")
    lr: float = option(2e-3, "highest learning rate of AdamW; a cosine leads to zero")
    weight_decay: float = option(0.05, "of kernels and matrices")
    warmup: float = option(0.05, "share of the steps over which the learning rate rises")
    shift: int = option(2, "largest random translation in pixels")
    flip: bool = option(False, "random horizontal mirrors; wrong for digits and letters")
    balance: float = option(
        0.5, "losses are weighted by class size to the power of minus this: 1 gives classes equal weight"
    )
    rotation_weight: float = option(0.0, "weight of the rotation loss; 0 is supervised training")
    rotation_batch: int = option(16, "unlabelled images per step, each in four rotations")

    def check(self) -> None:
        """Raises UserError for a value outside its range."""
        for name in ("width", "steps", "batch", "rotation_batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive integer")
        for name in ("lr", "weight_decay", "warmup", "shift", "balance", "rotation_weight"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)}: expected no negative number")


class Classifier(nn.Module):
    """An encoder with a linear head over classes, and one over rotations for the S4L loss.

    `facts` are stored in its file: `class_names`, and what it was trained on. Values are JSON.
    """

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder, self.classes = encoder, classes
        self.facts: dict[str, Any] = {}
        self.head = nn.Linear(encoder.num_features, classes)
        self.rotation_head = rotation_head(encoder.num_features)
        initialise(self.head, 0, "classes")

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32 in [-1, 1] -> (N, F)."""
        return self.encoder(x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32 in [-1, 1] -> logits (N, classes)."""
        return self.head(self.encoder(x))


def fit(
    images: Pictures,
    labels: np.ndarray | Tensor,
    classes: int,
    recipe: ClassifierRecipe,
    *,
    seed: int,
    device: torch.device | str,
    init: Encoder | None = None,
    unlabelled: Pictures | None = None,
    job: Job | None = None,
    what: str = "classifier",
) -> Classifier:
    """Trains a classifier; the same one for the same arguments, threads and machine type.

    Args:
        images: N labelled images.
        labels: (N,) integers from 0 to classes - 1; a class may have one image, or none (it is then never predicted
            with confidence). Images are drawn uniformly; ``recipe.balance`` weights their losses.
        init: an encoder to start from, for example a pretrained one; it is copied.
        unlabelled: images for the rotation loss, which may include `images`; by default `images`.
        job: shows progress (images/s, time left) and makes all ranks agree.
        what: the name of the progress bar.

    Returns:
        the classifier in evaluation mode.

    Raises:
        UserError: no labelled image, or a value of the recipe outside its range.
    """
    recipe.check()
    targets = torch.as_tensor(np.asarray(labels), dtype=torch.int64)
    if not len(targets):
        raise UserError(f"{what}: no labelled images to learn from")
    assert len(targets) == len(images) and int(targets.min()) >= 0 and int(targets.max()) < classes
    channels = images[np.zeros(1, np.int64)].shape[1]
    name, width = (init.name, init.width) if init else (recipe.encoder, recipe.width)
    encoder = build_encoder(name, channels, width, seed=seed)
    if init is not None:
        encoder.load_state_dict(init.state_dict())
    classifier = Classifier(encoder, classes).to(device).train()
    optimizer = torch.optim.AdamW(_groups(classifier, recipe.weight_decay), lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(recipe))
    labelled = AugmentedBatches(images, recipe.batch, recipe, seed, "labelled")
    turned = AugmentedBatches(
        images if unlabelled is None else unlabelled, recipe.rotation_batch, recipe, seed, "unlabelled"
    )

    weights = class_weights(targets, classes, recipe.balance).to(device)
    steps: Iterable[int] = range(recipe.steps)
    if job is not None:
        steps = job.track(steps, recipe.steps * labelled.size, "images", what, weight=labelled.size)
    for step in steps:
        labelled_images, chosen = labelled.batch(step, device)
        targets_of_batch = targets[chosen].to(device, non_blocking=True)
        unlabelled_images = turned.batch(step, device)[0] if recipe.rotation_weight else None
        loss = losses(classifier, labelled_images, targets_of_batch, weights, unlabelled_images, recipe.rotation_weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    if job is not None:
        _agree(classifier, job)
    return classifier.eval()


def class_weights(targets: Tensor, classes: int, balance: float) -> Tensor:
    """Class weights (classes,) float32, the class size to the power of -balance, scaled to mean 1 over images.

    A class without images has weight 0.
    """
    sizes = torch.bincount(targets, minlength=classes).double()
    weights = torch.where(sizes > 0, sizes.clamp(min=1) ** -balance, 0.0)
    return (weights * sizes.sum() / (weights * sizes).sum()).float()


def losses(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    weights: Tensor,
    unlabelled: Tensor | None,
    rotation_weight: float,
) -> Tensor:
    """The loss of a step: labelled images (n, C, H, W), their labels (n,), and unlabelled ones (m, C, H, W) to rotate.

    ``weights`` (classes,) are class weights. All images pass the encoder at once, so that batch norm normalises upright
    and rotated images together.
    """
    rotated_images, rotations = rotate_all(unlabelled) if unlabelled is not None else (images[:0], labels[:0])
    features = classifier.encoder(torch.cat([images, rotated_images]))
    split = [len(images), len(rotated_images)]
    upright, rotated_features = features.split(split)
    loss = (F.cross_entropy(classifier.head(upright), labels, reduction="none") * weights[labels]).mean()
    if unlabelled is not None:
        loss = loss + rotation_weight * rotation_losses(classifier.rotation_head(rotated_features), rotations).mean()
    return loss


class AugmentedBatches:
    """Augmented batches: each image once per epoch in a seeded order; augmentation is seeded by the step."""

    def __init__(self, images: Pictures, size: int, recipe: ClassifierRecipe, seed: int, purpose: str) -> None:
        self.images, self.size, self.recipe = images, size, recipe
        self.seed, self.purpose = seed, purpose

    def batch(self, step: int, device: torch.device | str) -> tuple[Tensor, np.ndarray]:
        """Images (size, C, H, W) float32 in [-1, 1], and their indices."""
        chosen = self._indices(np.arange(step * self.size, (step + 1) * self.size))
        draws = augment.draw(self.size, self.recipe.shift, self.recipe.flip, self.seed, self.purpose, step)
        images = to_float(torch.as_tensor(self.images[chosen]), device)
        return augment.apply(images, draws), chosen

    def _indices(self, positions: np.ndarray) -> np.ndarray:
        count = len(self.images)
        indices = np.empty_like(positions)
        epochs = positions // count
        for epoch in np.unique(epochs).tolist():
            inside = epochs == epoch
            shuffle = derive_seed(self.seed, self.purpose, epoch)
            indices[inside] = permute(positions[inside] - epoch * count, count, shuffle)
        return indices


def _groups(classifier: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only, not for biases and norms."""
    parameters = list(classifier.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _cosine(recipe: ClassifierRecipe) -> Callable[[int], float]:
    """The factor on the learning rate at a step: linear warm-up, then half a cosine down to zero."""
    warmup = max(1, round(recipe.warmup * recipe.steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, recipe.steps - warmup)))

    return factor


@torch.no_grad()
def _agree(module: nn.Module, job: Job) -> None:
    """Gives every rank rank 0's weights."""
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.copy_(job.reduce(tensor if job.rank == 0 else torch.zeros_like(tensor)))


@torch.no_grad()
def predict(classifier: Classifier, images: Iterable[Tensor], device: torch.device | str) -> Tensor:
    """Logits (N, classes) float32 on the CPU for batches of uint8 images (n, C, H, W), in their order."""
    parts = [classifier(to_float(batch, device)).float().cpu() for batch in images]
    return torch.cat(parts) if parts else torch.zeros(0, classifier.classes)


def blocks(images: Pictures, size: int = 512) -> Iterator[Tensor]:
    """All images in index order, in batches, as `predict` takes them."""
    for start in range(0, len(images), size):
        yield torch.as_tensor(images[np.arange(start, min(start + size, len(images)))])


def save_classifier(path: Path, classifier: Classifier) -> None:
    """Writes the classifier as safetensors; `load_encoder` takes the file too. Atomic."""
    facts = json.dumps(classifier.facts, ensure_ascii=False)
    save_network(path, classifier, classifier.encoder, classes=str(classifier.classes), facts=facts)


def load_classifier(path: Path, device: torch.device | str) -> Classifier:
    """A classifier of `save_classifier` in evaluation mode.

    Args:
        path: its file, a directory with a `classifier.safetensors`, or the label table that it made.

    Raises:
        UserError: the file is missing, torn, or no classifier.
    """
    file = path / CLASSIFIER_FILE if path.is_dir() else classifier_path(path) if path.suffix == ".parquet" else path
    if not file.is_file():
        raise UserError(
            f"{str(path)!r}: expected a classifier in {str(file)!r}, which does not exist "
            "(selfsup.label method=classifier keeps it beside the table that it makes)"
        )
    state, metadata = read_network(file)
    if "classes" not in metadata:
        raise UserError(f"{str(file)!r}: expected a classifier, this is only an encoder")
    classifier = Classifier(rebuild(state, metadata, file), int(metadata["classes"]))
    classifier.load_state_dict(state)
    classifier.facts = json.loads(metadata.get("facts", "{}"))
    return classifier.to(device).eval()


def classifier_path(table: Path) -> Path:
    """Where `selfsup.label method=classifier` keeps the classifier that made a label table."""
    return table.with_suffix(CLASSIFIER_SUFFIX)


def table_path(classifier: Path) -> Path:
    """The label table that a classifier made, if the classifier is where `classifier_path` says."""
    return classifier.with_name(classifier.name.removesuffix(CLASSIFIER_SUFFIX) + ".parquet")
