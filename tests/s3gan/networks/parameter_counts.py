"""How many parameters layers have, for what states a published network as a table of layers."""

from torch import nn


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def dense(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def conv(inputs: int, outputs: int, kernel: int) -> int:
    return (inputs * kernel**2 + 1) * outputs


def attention(features: int) -> int:
    """Query, key, value and output without biases (Zhang et al. 2019), and the scale."""
    return features * (features // 8) * 2 + features * (features // 2) * 2 + 1
