"""Predict by how much a picture was turned (RotNet, Gidaris et al. 2018, equations 1 to 3)."""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

from selfsup.encoders.resnet import initialise

ROTATIONS = 4
CAPTION_PIXELS, TILE_PIXELS = 13, 64


def rotate_all(images: Tensor) -> tuple[Tensor, Tensor]:
    """All four rotations of square pictures (N, ...): (4N, ...), by 0, 90, 180 and 270 degrees, and targets (4N,).

    Rotation r of picture n stands at r·N + n, so the first N are the upright ones. Only transposes and flips: an
    interpolated rotation would give itself away.
    """
    turned = torch.cat([torch.rot90(images, turns, (-2, -1)) for turns in range(ROTATIONS)])
    return turned, torch.arange(ROTATIONS, device=images.device).repeat_interleave(len(images))


class RotationTask:
    """Every picture in all four rotations in the same batch; the mean cross-entropy over them is its loss."""

    chance = 1 / ROTATIONS

    def heads(self, num_features: int) -> nn.Module:
        """A linear map to four logits."""
        head = nn.Linear(num_features, ROTATIONS)
        initialise(head, 0, "rotation")
        return head

    def examples(self, images: Tensor, *key: int | str) -> tuple[Tensor, Tensor]:
        """Every picture four times; nothing is drawn."""
        return rotate_all(images)

    def losses(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """Logits (4N, 4) and rotations (4N,) -> (N,)."""
        return F.cross_entropy(outputs.float(), answers, reduction="none").view(ROTATIONS, -1).mean(0)

    def correct(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """Logits (4N, 4) and rotations (4N,) -> (N,)."""
        return (outputs.argmax(1) == answers).float().view(ROTATIONS, -1).mean(0)

    def sheet(self, images: Tensor, outputs: Tensor) -> tuple[np.ndarray, int]:
        """Each picture in a column of four, captioned with the true angle, and the predicted one where it differs."""
        turned, answers = rotate_all(images)
        pairs = zip(turned.cpu().numpy(), answers.tolist(), outputs.argmax(1).tolist(), strict=True)
        return np.stack([_tile(picture, answer, guess) for picture, answer, guess in pairs]), len(images)


def _tile(picture: np.ndarray, answer: int, guess: int) -> np.ndarray:
    """A uint8 picture (C, H, W) enlarged over its caption: (C, h, w)."""
    mode = "L" if picture.shape[0] == 1 else "RGB"
    tile = Image.new(mode, (TILE_PIXELS, TILE_PIXELS + CAPTION_PIXELS), "white")
    source = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)).squeeze())
    tile.paste(source.resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.NEAREST))
    caption = f"{90 * answer}" if guess == answer else f"{90 * answer} not {90 * guess}"
    ImageDraw.Draw(tile).text((2, TILE_PIXELS), caption, fill="black")
    array = np.asarray(tile, np.uint8)
    return array[None] if mode == "L" else array.transpose(2, 0, 1)
