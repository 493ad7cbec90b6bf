"""Noise that is a function of the picture: a refiner's source of chance that needs no generator and no state.

The same picture gets the same noise in whatever batch, process or life of a run; one grey level more somewhere, and
it is another noise altogether. Integer hashes alone make it, so the pattern does not depend on the device (the last
bits of its values may).
"""

import math

import torch

MASK = 0xFFFFFFFF


def image_noise(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Standard normal noise float32 (N, channels, H, W) for images (N, C, H, W) in [-1, 1] of 8-bit origin."""
    count, _, height, width = images.shape
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        levels = ((images.detach().float() + 1) * 127.5).round().long().flatten(1)
        places = torch.arange(max(levels.shape[1], 2 * channels * height * width), device=images.device)
        digest = scrambled(levels + 256 * places[: levels.shape[1]]).sum(1, keepdim=True) & MASK
        bits = scrambled(digest ^ scrambled(places[: 2 * channels * height * width]))
        radius, angle = ((bits.float() + 0.5) / 2**32).view(count, 2, channels, height, width).unbind(1)
        return torch.sqrt(-2 * torch.log(radius)) * torch.cos(2 * math.pi * angle)  # Box and Muller 1958


def scrambled(values: torch.Tensor) -> torch.Tensor:
    """A bijection of 32-bit numbers (held as int64) that changes half the bits for any bit that changes (the constants
    of Wellons' "lowbias32")."""
    values = values & MASK
    values = ((values ^ (values >> 16)) * 0x7FEB352D) & MASK
    values = ((values ^ (values >> 15)) * 0x846CA68B) & MASK
    return values ^ (values >> 16)
