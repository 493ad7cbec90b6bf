"""The gaze estimator of Shrivastava et al. 2017 (arXiv 1612.07828, section 3.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cluster_jobs.core.errors import UserError

GAIN, SHIFT = 0.4, 0.3  # augmentation: contrast 1 ± GAIN, brightness ± SHIFT of [-1, 1]
BLUR = (0.25, 0.5, 0.25)  # a kernel, applied up to BLURS times along each axis
BLURS, NOISE = 4, 0.1  # the greatest standard deviation of the noise, of [-1, 1]


class GazeEstimator(nn.Module):
    """(N, C, H, W) float32 in [-1, 1] → (N, 3), a direction of any length.

    3×3 convolutions with 32, 32 and 64 maps, 3×3 max pooling with stride 2, 3×3 convolutions with 80 and 192 maps, 2×2
    max pooling with stride 2, linear layers with 1000 and 3 outputs. There is no padding: 35 × 55 pixels become
    192 · 5 · 10 = 9600 values.

    Args:
        width: factor on the numbers of maps and on the 1000.
    """

    def __init__(self, channels: int, height: int, width_px: int, width: float) -> None:
        super().__init__()
        first, second, third, fourth, fifth, hidden = (
            max(1, round(maps * width)) for maps in (32, 32, 64, 80, 192, 1000)
        )
        self.features = nn.Sequential(
            *(nn.Conv2d(channels, first, 3), nn.ReLU(), nn.Conv2d(first, second, 3), nn.ReLU()),
            *(nn.Conv2d(second, third, 3), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(third, fourth, 3), nn.ReLU(), nn.Conv2d(fourth, fifth, 3), nn.ReLU(), nn.MaxPool2d(2, 2)),
            nn.Flatten(),
        )
        try:
            with torch.no_grad():
                self.flat = self.features(torch.zeros(1, channels, height, width_px)).shape[1]
        except RuntimeError as error:
            raise UserError(f"pictures of {height} × {width_px}: too small for the gaze estimator") from error
        self.head = nn.Sequential(nn.Linear(self.flat, hidden), nn.ReLU(), nn.Linear(hidden, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class GazeProblem:
    """Estimating gaze directions from images of eyes: targets are unit vectors (N, 3).

    Args:
        augmented: whether training images are randomly augmented. The paper's are not.
    """

    name = "gaze"

    def __init__(self, augmented: bool = False) -> None:
        self.augmented = augmented

    def build(self, shape: tuple[int, int, int], width: float) -> nn.Module:
        """The network for images of a shape (C, H, W)."""
        return GazeEstimator(*shape, width)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Half the squared Euclidean distance to the unit vector, (n,)."""
        return 0.5 * (output - target).square().sum(1)

    def augment(self, images: Tensor, targets: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random brightness, contrast, blur and noise for each image; none of them moves the eye."""
        if not self.augmented:
            return images, targets
        draws = torch.rand(4, len(images), 1, 1, 1, generator=random, device=images.device)
        images = images * (1 + GAIN * (2 * draws[0] - 1)) + SHIFT * (2 * draws[1] - 1)
        images = blurred(images, draws[2] * BLURS)
        noise = torch.randn(images.shape, generator=random, device=images.device)
        return images + NOISE * draws[3] * noise, targets


def blurred(images: Tensor, times: Tensor) -> Tensor:
    """Images (n, C, H, W) blurred ``times`` (n, 1, 1, 1) times, fractions allowed; borders are replicated."""
    channels = images.shape[1]
    row = torch.tensor(BLUR, device=images.device)
    kernel = (row[:, None] * row).expand(channels, 1, 3, 3)
    for number in range(BLURS):
        softer = functional.conv2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)
        images = torch.lerp(images, softer, (times - number).clamp(0, 1))
    return images
