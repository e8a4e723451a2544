"""The diffusion process of Stable Diffusion: how noisy a picture is at each timestep, and what the UNet must answer."""

from __future__ import annotations

import torch
from torch import Tensor

NUM_TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012  # "scaled linear": linear in the square root (CompVis' v1-inference.yaml)


class Process:
    """Noise levels of 1000 timesteps; √ᾱ(t) of the picture and √(1 − ᾱ(t)) of the noise remain at timestep t.

    Args:
        prediction: "epsilon" (the UNet answers the noise) or "v_prediction" (Salimans & Ho 2022).
        device: where latents live.
    """

    def __init__(self, prediction: str = "epsilon", device: torch.device | str = "cpu") -> None:
        if prediction not in ("epsilon", "v_prediction"):
            raise ValueError(f"unknown prediction {prediction!r}")
        self.prediction = prediction
        betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, NUM_TIMESTEPS, dtype=torch.float32) ** 2
        alphas_cumprod = torch.cumprod(1.0 - betas, dim=0).to(device)
        self.signal = alphas_cumprod.sqrt()  # (1000,)
        self.noise = (1.0 - alphas_cumprod).sqrt()
        self._snr = alphas_cumprod / (1.0 - alphas_cumprod)

    def add(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents (B, C, h, w) of latents and noise (B, C, h, w) at timesteps (B,)."""
        return _at(self.signal, timesteps) * latents + _at(self.noise, timesteps) * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the UNet should answer (B, C, h, w)."""
        if self.prediction == "epsilon":
            return noise
        return _at(self.signal, timesteps) * noise - _at(self.noise, timesteps) * latents

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio ᾱ ÷ (1 − ᾱ) at timesteps (B,)."""
        return self._snr[timesteps]


def _at(table: Tensor, timesteps: Tensor) -> Tensor:
    """(B, 1, 1, 1)"""
    return table[timesteps].view(-1, 1, 1, 1)
