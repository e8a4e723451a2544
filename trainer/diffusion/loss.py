"""How far a prediction is off, for each sample, and how much each noise level counts."""

from __future__ import annotations

from torch import Tensor


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample (B,) in float32, of (B, C, h, w) tensors."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def min_snr_weight(snr: Tensor, gamma: float, prediction: str) -> Tensor:
    """Min-SNR-γ weights (B,) for signal-to-noise ratios (B,) (Hang et al. 2023, section 3.4).

    min(SNR, γ) ÷ SNR for a prediction of the noise, ÷ (SNR + 1) for one of v.
    """
    return snr.clamp(max=gamma) / (snr if prediction == "epsilon" else snr + 1.0)
