"""Randomness as a function of a key: who asks for the same thing gets the same numbers, whatever came before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

Key = tuple[int, ...]  # of a sample: epoch, item, repeat


def key_seed(seed: int, purpose: str, *key: int) -> int:
    """A 63-bit seed that depends on all of its arguments."""
    text = "\x1f".join(map(str, (seed, purpose, *key)))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "little") >> 1


def generator(seed: int, purpose: str, *key: int) -> torch.Generator:
    """A CPU generator for one purpose ("noise", "timestep", ...) and key; equal arguments give equal draws."""
    return torch.Generator().manual_seed(key_seed(seed, purpose, *key))


def normal(seed: int, purpose: str, keys: Sequence[Key], shape: Sequence[int]) -> Tensor:
    """Standard normal numbers (B, *shape) float32 on the CPU, each sample's from its own key."""
    return torch.stack([torch.randn(tuple(shape), generator=generator(seed, purpose, *key)) for key in keys])


def sample_noise(seed: int, keys: Sequence[Key], shape: Sequence[int], offset: float = 0.0) -> Tensor:
    """The noise that samples are hidden in, (B, C, h, w) on the CPU.

    Args:
        seed: of the run.
        keys: one for each sample.
        shape: (C, h, w).
        offset: strength of one more draw for each sample and channel, the same for all its pixels: plain noise leaves a
            picture's mean nearly as it is, so the model never learns to move it (Guttenberg 2023).
    """
    noise = normal(seed, "noise", keys, shape)
    if offset:
        noise += offset * normal(seed, "noise offset", keys, (shape[0], 1, 1))
    return noise


def seed_libraries(seed: int, *key: int) -> None:
    """Seed torch's global generators (all devices) for what libraries draw by themselves: dropout, 8-bit rounding."""
    torch.manual_seed(key_seed(seed, "libraries", *key))
