"""Noise that is a hash of the image: a refiner's source of randomness, without a generator or a state.

The same image gets the same noise in every batch and process; a change of one grey level in one pixel changes all of
it. It is made by integer hashes, so it does not depend on the device (except for the last bits of its values).
"""

import math

import torch

MASK = 0xFFFFFFFF


def image_noise(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Standard normal noise float32 (N, channels, H, W) for images (N, C, H, W) in [-1, 1] of 8-bit origin."""
    count, _, height, width = images.shape
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        levels = ((images.detach().float() + 1) * 127.5).round().long().flatten(1)
        positions = torch.arange(max(levels.shape[1], 2 * channels * height * width), device=images.device)
        digest = scrambled(levels + 256 * positions[: levels.shape[1]]).sum(1, keepdim=True) & MASK
        bits = scrambled(digest ^ scrambled(positions[: 2 * channels * height * width]))
        radius, angle = ((bits.float() + 0.5) / 2**32).view(count, 2, channels, height, width).unbind(1)
        return torch.sqrt(-2 * torch.log(radius)) * torch.cos(2 * math.pi * angle)  # Box and Muller 1958


def scrambled(values: torch.Tensor) -> torch.Tensor:
    """A bijection of 32-bit numbers (held as int64) that changes half the bits for any bit that changes (the constants
    of Wellons' "lowbias32")."""
    values = values & MASK
    values = ((values ^ (values >> 16)) * 0x7FEB352D) & MASK
    values = ((values ^ (values >> 15)) * 0x846CA68B) & MASK
    return values ^ (values >> 16)
