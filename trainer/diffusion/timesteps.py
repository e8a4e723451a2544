"""Which noise level each sample is trained at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.diffusion.noise import Key, generator


def uniform_timesteps(seed: int, keys: Sequence[Key], num_timesteps: int) -> Tensor:
    """One of 0 … num_timesteps - 1 for each sample, all equally likely: (B,) int64 on the CPU, from the samples' keys."""
    drawn = [torch.randint(num_timesteps, (), generator=generator(seed, "timestep", *key)) for key in keys]
    return torch.stack(drawn)
