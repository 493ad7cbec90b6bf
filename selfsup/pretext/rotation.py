"""The rotation task: predict by which angle an image was rotated (RotNet, Gidaris et al. 2018, equations 1 to 3)."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

from selfsup.encoders.resnet import Encoder, initialise
from selfsup.pretext.draws import Draws
from selfsup.pretext.protocol import Gather, PretextModule, PretextTask, TaskLosses, Views

ROTATIONS = 4
CAPTION_PIXELS, TILE_PIXELS = 13, 64


def rotate_all(images: Tensor) -> tuple[Tensor, Tensor]:
    """All four rotations of square images (N, ...): (4N, ...), by 0, 90, 180 and 270 degrees, and targets (4N,).

    Rotation r of image n is entry r·N + n, so the first N are the upright ones. Only transposes and flips, because
    interpolation would reveal the rotation.
    """
    turned = torch.cat([torch.rot90(images, turns, (-2, -1)) for turns in range(ROTATIONS)])
    return turned, torch.arange(ROTATIONS, device=images.device).repeat_interleave(len(images))


def rotation_head(num_features: int) -> nn.Module:
    """A linear map to four logits."""
    head = nn.Linear(num_features, ROTATIONS)
    initialise(head, 0, "rotation")
    return head


def rotation_losses(logits: Tensor, rotations: Tensor) -> Tensor:
    """The mean cross-entropy over an image's four rotations: logits (4N, 4) and rotations (4N,) to (N,)."""
    return F.cross_entropy(logits.float(), rotations, reduction="none").view(ROTATIONS, -1).mean(0)


def rotation_accuracy(logits: Tensor, rotations: Tensor) -> Tensor:
    """The share of an image's four rotations that are recognised: logits (4N, 4) and rotations (4N,) to (N,)."""
    return (logits.argmax(1) == rotations).float().view(ROTATIONS, -1).mean(0)


class RotationModule(PretextModule):
    """An encoder under a linear head over the four rotations."""

    def __init__(self, encoder: Encoder, heads: nn.Module) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, heads

    def forward(self, turned: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, 4)."""
        return self.heads(self.encoder(turned))


class RotationTask(PretextTask):
    """Every image in all four rotations in the same batch; the mean cross-entropy over them is its loss."""

    measured = ("loss", "accuracy")
    score = "accuracy"
    higher_is_better = True
    caption = "Held-out images: the answer, and the guess where it is wrong."
    chance = 1 / ROTATIONS

    def module(self, encoder: Encoder) -> RotationModule:
        return RotationModule(encoder, rotation_head(encoder.num_features))

    def views(self, images: Tensor, draws: Draws, targets: Tensor | None = None) -> Views:
        """Every image four times, and the rotations; nothing is drawn."""
        return rotate_all(images)

    def losses(self, network: nn.Module, views: Views, gather: Gather) -> TaskLosses:
        turned, rotations = views
        logits = network(turned)
        losses = rotation_losses(logits, rotations)
        return TaskLosses(losses, {"loss": losses.mean(), "accuracy": rotation_accuracy(logits, rotations).mean()})

    def measures(self, module: PretextModule, views: Views) -> Sequence[Tensor]:
        turned, rotations = views
        logits = module(turned)
        return rotation_losses(logits, rotations), rotation_accuracy(logits, rotations)

    def sheet(self, module: PretextModule, images: Tensor, views: Views) -> tuple[np.ndarray, int]:
        """Each image in a column of four, captioned with the true angle, and the predicted one where it differs."""
        turned, rotations = rotate_all(images)
        guesses = module(views[0]).argmax(1).tolist()
        captioned = zip(turned.cpu().numpy(), rotations.tolist(), guesses, strict=True)
        return np.stack([_tile(picture, answer, guess) for picture, answer, guess in captioned]), len(images)


def _tile(picture: np.ndarray, answer: int, guess: int) -> np.ndarray:
    """A uint8 image (C, H, W) enlarged over its caption: (C, h, w)."""
    mode = "L" if picture.shape[0] == 1 else "RGB"
    tile = Image.new(mode, (TILE_PIXELS, TILE_PIXELS + CAPTION_PIXELS), "white")
    source = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)).squeeze())
    tile.paste(source.resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.NEAREST))
    caption = f"{90 * answer}" if guess == answer else f"{90 * answer} not {90 * guess}"
    ImageDraw.Draw(tile).text((2, TILE_PIXELS), caption, fill="black")
    array = np.asarray(tile, np.uint8)
    return array[None] if mode == "L" else array.transpose(2, 0, 1)
