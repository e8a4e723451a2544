"""Random tensors as a function of a key, never of history: what makes resume exact and previews comparable."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

Key = tuple[int, ...]


def keyed_seed(seed: int, purpose: str, *key: int) -> int:
    """A 63-bit seed that depends on nothing but its arguments."""
    text = "\x1f".join(map(str, (seed, purpose, *key)))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *key: int) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments."""
    return torch.Generator().manual_seed(keyed_seed(seed, purpose, *key))


def keyed_normal(shape: Sequence[int], seed: int, purpose: str, keys: Sequence[Key]) -> Tensor:
    """Standard normal numbers (B, *shape) float32 on the CPU, each sample's from its own key."""
    return torch.stack([torch.randn(tuple(shape), generator=generator(seed, purpose, *key)) for key in keys])


def training_noise(shape: Sequence[int], seed: int, keys: Sequence[Key], offset: float = 0.0) -> Tensor:
    """The noise (B, C, h, w) that pictures are hidden in; `shape` is (C, h, w).

    With an `offset` every channel of every sample is shifted by offset × a normal number of its own (N. Guttenberg,
    "Diffusion with offset noise"; as sd-scripts does).
    """
    noise = keyed_normal(shape, seed, "noise", keys)
    if offset:
        noise = noise + offset * keyed_normal((shape[0], 1, 1), seed, "noise offset", keys)
    return noise


def keyed_timesteps(num_timesteps: int, seed: int, keys: Sequence[Key]) -> Tensor:
    """Timesteps (B,) int64, uniform in 0 … num_timesteps − 1, each sample's from its own key."""
    drawn = [torch.randint(num_timesteps, (1,), generator=generator(seed, "timestep", *key)) for key in keys]
    return torch.cat(drawn)
