"""From a prediction to the number that is minimised."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.diffusion.process import Process


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample, (B,) float32, whatever the precision of the prediction."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def min_snr_weight(process: Process, timesteps: Tensor, gamma: float) -> Tensor:
    """Min-SNR-γ weights (B,) (Hang et al. 2023): min(SNR, γ) ÷ SNR for ε, ÷ (SNR + 1) for v. γ = 0: all ones."""
    if not gamma:
        return torch.ones_like(timesteps, dtype=torch.float32)
    snr = process.snr(timesteps)
    least = snr.clamp(max=gamma)
    return least / snr if process.prediction == "epsilon" else least / (snr + 1)
