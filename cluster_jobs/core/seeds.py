"""Keyed randomness: every random draw is a function of (seed, purpose, position), so there is no generator state to
save.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # loading torch takes seconds, and most commands that hash keys do not need it
    import torch

VALIDATION_SHARE = 20  # one key in twenty: choices may look at this part of the training split


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def derive_seed(*parts: int | str) -> int:
    """A 63-bit hash of the parts, the same on every platform and in every process."""
    return _digest("\x1f".join(f"{type(part).__name__}:{part}" for part in parts)) >> 1


def generator(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """A torch generator on ``device`` seeded with :func:`derive_seed` of the parts."""
    import torch

    return torch.Generator(device).manual_seed(derive_seed(*parts))


def key_hash(seed: int | str, key: str) -> int:
    """The 64-bit hash that orders sample keys for a seed; budgets and splits take the smallest."""
    return _digest(f"{seed}/{key}")


def is_validation(key: str) -> bool:
    """Whether a training sample belongs to the key-hashed 5 % on which choices may be made."""
    return key_hash("validation", key) % VALIDATION_SHARE == 0
