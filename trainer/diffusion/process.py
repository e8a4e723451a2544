"""The diffusion process of Stable Diffusion: how noise is added, and what the model should say of it.

x_t = √ᾱ_t · x_0 + √(1 - ᾱ_t) · ε (Ho et al. 2020, equation 4), with the "scaled linear" betas of SD 1.x.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUM_TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
PREDICTIONS = ("epsilon", "v_prediction")


class Process:
    """Noise levels of a model and its parametrisation, "epsilon" or "v_prediction".

    With `zero_snr` the last level holds no signal at all (Lin et al. 2023); only v says anything there, so epsilon is
    refused with a ValueError.
    """

    def __init__(
        self, prediction: str = "epsilon", device: torch.device | str = "cpu", *, zero_snr: bool = False
    ) -> None:
        if prediction not in PREDICTIONS:
            raise ValueError(f"unknown prediction {prediction!r}")
        if zero_snr and prediction == "epsilon":
            raise ValueError("an epsilon model has nothing to say of pure noise")
        self.prediction, self.zero_snr = prediction, zero_snr
        betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, NUM_TIMESTEPS, dtype=torch.float32) ** 2
        levels = torch.cumprod(1 - betas, 0)
        self.alphas_cumprod = (_to_zero_snr(levels) if zero_snr else levels).to(device)  # ᾱ: (1000,) float32

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents (B, C, h, w)."""
        signal, spread = self._factors(timesteps)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the model should answer (B, C, h, w): the noise, or v = √ᾱ · ε - √(1 - ᾱ) · x_0 (Salimans & Ho 2022)."""
        if self.prediction == "epsilon":
            return noise
        signal, spread = self._factors(timesteps)
        return signal * noise - spread * latents

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio ᾱ ÷ (1 - ᾱ) of each timestep (B,): 0 where nothing but noise is left."""
        level = self.alphas_cumprod[timesteps]
        return level / (1 - level)

    def _factors(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        level = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return level.sqrt(), (1 - level).sqrt()


def _to_zero_snr(levels: Tensor) -> Tensor:
    """ᾱ whose square root is shifted and stretched so that the last is 0 and the first stays (Lin et al., algorithm 1)."""
    roots = levels.sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    return ((roots - last) * (first / (first - last))).square()
