"""Layers of generators and discriminators: spectral norm, conditional batch norm, self-attention, residual blocks.

`normalise`, set once at construction, says whether a network's weights are spectrally normalised. Layers do not depend
on ranks or devices.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cluster_jobs.distributed.batchnorm import BatchNorm


class SpectralNorm(nn.Module):
    """Divides a weight by its largest singular value, estimated by power iteration (Miyato et al. 2018, Algorithm 1).

    A forward uses the two singular vectors as they are; whoever changes the weight calls `iterate` before the next
    forward, once per training step however many forwards it makes. The vectors are buffers, so that evaluation and a
    resumed run use the very ones of the last step.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, eps: float = 1e-12) -> None:
        super().__init__()
        self.eps = eps
        rows, columns = weight.flatten(1).shape
        self.register_buffer("u", F.normalize(torch.randn(rows), dim=0, eps=eps))
        self.register_buffer("v", F.normalize(torch.randn(columns), dim=0, eps=eps))

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """One power iteration on the whole matrix of the weight (out, ...) float32."""
        matrix = weight.flatten(1)
        self.v.copy_(F.normalize(matrix.t().mv(self.u), dim=0, eps=self.eps))
        self.u.copy_(F.normalize(matrix.mv(self.v), dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight (out, ...) with a spectral norm of one, in float32 also under autocast."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight / torch.dot(self.u, weight.flatten(1).mv(self.v))


class Conv2d(nn.Conv2d):
    """A convolution that divides height and width by its stride, its weight spectrally normalised where asked for."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, normalise: bool, bias: bool = True, stride: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=bias)
        self.spectral = SpectralNorm(self.weight) if normalise else None

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, normalised_weight(self), self.bias)


class TransposedConv2d(Conv2d):
    """A transposed 4x4 convolution that doubles height and width."""

    def __init__(self, inputs: int, outputs: int, *, normalise: bool) -> None:
        super().__init__(inputs, outputs, 4, normalise=normalise)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, inputs, H, W) -> (N, outputs, 2H, 2W)."""
        return F.conv_transpose2d(x, normalised_weight(self).transpose(0, 1), self.bias, stride=2, padding=1)


class UpConv2d(Conv2d):
    """Nearest-neighbour upsampling by two, then a 3x3 convolution: as one transposed 4x4 convolution, the same function
    (up to rounding) at less than half of the work, without the large map in between."""

    def __init__(self, inputs: int, outputs: int, *, normalise: bool) -> None:
        super().__init__(inputs, outputs, 3, normalise=normalise)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, inputs, H, W) -> (N, outputs, 2H, 2W)."""
        kernel = _summed_shifts(normalised_weight(self).flip(2, 3))
        return F.conv_transpose2d(x, kernel.transpose(0, 1), self.bias, stride=2, padding=1)


class DownConv2d(Conv2d):
    """A 3x3 convolution, then 2x2 average pooling: as one 4x4 convolution of stride two, likewise."""

    def __init__(self, inputs: int, outputs: int, *, normalise: bool) -> None:
        super().__init__(inputs, outputs, 3, normalise=normalise)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, inputs, H, W) -> (N, outputs, H/2, W/2)."""
        return F.conv2d(x, _summed_shifts(normalised_weight(self)) / 4, self.bias, stride=2, padding=1)


def _summed_shifts(kernel: Tensor) -> Tensor:
    """The sum of a kernel (..., 3, 3) and its copies shifted by one pixel down, right and both: (..., 4, 4)."""
    rows = F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))
    return F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))


class Linear(nn.Linear):
    """A linear layer, its weight spectrally normalised where asked for."""

    def __init__(self, inputs: int, outputs: int, *, normalise: bool, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        self.spectral = SpectralNorm(self.weight) if normalise else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, normalised_weight(self), self.bias)


class Embedding(nn.Embedding):
    """A table of class vectors, spectrally normalised as one matrix where asked for."""

    def __init__(self, classes: int, features: int, *, normalise: bool) -> None:
        super().__init__(classes, features)
        self.spectral = SpectralNorm(self.weight) if normalise else None

    def forward(self, conditions: Tensor) -> Tensor:
        """Labels (N,) int64, -1 for unknown, or weights (N, classes) float32 -> (N, features); unknown gives zeros."""
        weight = normalised_weight(self)
        if conditions.is_floating_point():
            return conditions.to(weight.dtype) @ weight
        return F.embedding(conditions.clamp(min=0), weight) * (conditions >= 0).unsqueeze(1)


def normalised_weight(layer: Conv2d | Linear | Embedding) -> Tensor:
    """The weight that the layer computes with."""
    return layer.weight if layer.spectral is None else layer.spectral(layer.weight)


def iterate_spectral_norm(module: nn.Module, iterations: int) -> None:
    """Brings every estimate closer to the largest singular value, for weights that have changed."""
    for layer in module.modules():
        if isinstance(layer, Conv2d | Linear | Embedding) and layer.spectral is not None:
            for _ in range(iterations):
                layer.spectral.iterate(layer.weight)


def fold_spectral_norm(module: nn.Module) -> nn.Module:
    """Writes every normalised weight into its layer and drops the norm: the same function, less work."""
    for layer in module.modules():
        if isinstance(layer, Conv2d | Linear | Embedding) and layer.spectral is not None:
            with torch.no_grad():
                layer.weight.copy_(normalised_weight(layer))
            layer.spectral = None
    return module


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain 1 + γ(c) and bias β(c) are linear in a condition c (Brock et al. 2019, appendix B).

    With weights of classes for a condition every class has a gain and a bias of its own (Miyato & Koyama 2018).
    """

    def __init__(self, features: int, condition: int, *, normalise: bool) -> None:
        super().__init__()
        self.norm = BatchNorm(features, affine=False)
        self.gamma = Linear(condition, features, normalise=normalise, bias=False)
        self.beta = Linear(condition, features, normalise=normalise, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (N, features, H, W), condition (N, condition) -> (N, features, H, W)."""
        gain = 1 + self.gamma(condition)[:, :, None, None]
        bias = self.beta(condition)[:, :, None, None]
        return torch.addcmul(bias, self.norm(x), gain)


class SelfAttention(nn.Module):
    """Non-local block over positions (Zhang et al. 2019, equations 1-3); begins as the identity."""

    def __init__(self, features: int, *, normalise: bool) -> None:
        super().__init__()
        eighth, half = max(features // 8, 1), max(features // 2, 1)
        self.query = Conv2d(features, eighth, 1, normalise=normalise, bias=False)
        self.key = Conv2d(features, eighth, 1, normalise=normalise, bias=False)
        self.value = Conv2d(features, half, 1, normalise=normalise, bias=False)
        self.out = Conv2d(half, features, 1, normalise=normalise, bias=False)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C, H, W). Keys and values are max-pooled, which quarters the attention matrix."""
        height, width = x.shape[2:]
        query = self.query(x).flatten(2).transpose(1, 2)
        key = F.max_pool2d(self.key(x), 2).flatten(2)
        value = F.max_pool2d(self.value(x), 2).flatten(2)
        attention = torch.softmax(query.bmm(key), dim=2)
        attended = value.bmm(attention.transpose(1, 2)).unflatten(2, (height, width))
        return x + self.scale * self.out(attended)


class GeneratorBlock(nn.Module):
    """Doubles height and width: norm, ReLU, upsample, convolve; norm, ReLU, convolve; plus a 1x1 shortcut.

    `norm` makes a conditional batch norm of so many features.
    """

    def __init__(
        self, inputs: int, outputs: int, norm: Callable[[int], ConditionalBatchNorm], *, normalise: bool
    ) -> None:
        super().__init__()
        self.norm1 = norm(inputs)
        self.conv1 = UpConv2d(inputs, outputs, normalise=normalise)
        self.norm2 = norm(outputs)
        self.conv2 = Conv2d(outputs, outputs, 3, normalise=normalise)
        self.shortcut = Conv2d(inputs, outputs, 1, normalise=normalise)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (N, inputs, H, W), condition (N, condition) -> (N, outputs, 2H, 2W)."""
        residual = self.conv1(F.relu(self.norm1(x, condition)))
        residual = self.conv2(F.relu(self.norm2(residual, condition)))
        # a 1x1 convolution commutes with upsampling, and before it works on a quarter of the places
        return residual + F.interpolate(self.shortcut(x), scale_factor=2.0, mode="nearest")


class DiscriminatorBlock(nn.Module):
    """ReLU, convolve, ReLU, convolve, average-pool where `down`; plus the input, through a 1x1 convolution where
    `convolved`. The first block leaves out the first ReLU: an image has a meaning below zero.
    """

    def __init__(
        self, inputs: int, hidden: int, outputs: int, *, down: bool, first: bool, convolved: bool, normalise: bool
    ) -> None:
        super().__init__()
        assert convolved or inputs == outputs
        self.down, self.first = down, first
        self.conv1 = Conv2d(inputs, hidden, 3, normalise=normalise)
        if down:
            self.conv2: Conv2d = DownConv2d(hidden, outputs, normalise=normalise)
        else:
            self.conv2 = Conv2d(hidden, outputs, 3, normalise=normalise)
        self.shortcut = Conv2d(inputs, outputs, 1, normalise=normalise) if convolved else None

    def forward(self, x: Tensor) -> Tensor:
        """x (N, inputs, H, W) -> (N, outputs, H/2, W/2) where down, else (N, outputs, H, W)."""
        residual = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if self.down:
            x = F.avg_pool2d(x, 2)  # pooling commutes with the 1x1 convolution
        return residual + (x if self.shortcut is None else self.shortcut(x))


def initialise(module: nn.Module, start: Callable[[Tensor], Tensor] = nn.init.orthogonal_) -> None:
    """Zero biases, and weights filled by `start`, for every layer.

    BigGAN starts from orthogonal weights (Saxe et al. 2014; Brock et al. 2019, appendix C).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            start(layer.weight)
            bias = getattr(layer, "bias", None)
            if bias is not None:
                nn.init.zeros_(bias)


def initialise_classes(generator: nn.Module, std: float) -> None:
    """Gains of 1 and biases of 0 for all classes (Miyato & Koyama 2018), or spread around these by `std`."""
    for layer in generator.modules():
        if isinstance(layer, ConditionalBatchNorm):
            nn.init.normal_(layer.gamma.weight, std=std)
            nn.init.normal_(layer.beta.weight, std=std)
