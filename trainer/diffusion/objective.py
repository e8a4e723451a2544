"""What one micro-step minimises: hide pictures in noise, let the model say which, compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from trainer.diffusion.loss import min_snr_weight, squared_error
from trainer.diffusion.noise import Key, normal, sample_noise
from trainer.diffusion.process import NUM_TIMESTEPS, Process
from trainer.diffusion.timesteps import uniform_timesteps
from trainer.models.protocol import Cond

Predict = Callable[[Tensor, Tensor, Cond], Tensor]  # noisy (B, C, h, w), timesteps (B,)
Encode = Callable[[Sequence[str]], Cond]


class Ref(Protocol):
    @property
    def key(self) -> Key: ...


class Batch(Protocol):
    """What the objective needs of `trainer.data.batches.Batch`."""

    @property
    def refs(self) -> Sequence[Ref]: ...
    @property
    def mean(self) -> Tensor: ...
    @property
    def captions(self) -> Sequence[str]: ...
    @property
    def cond(self) -> Cond | None: ...
    @property
    def weight(self) -> Tensor: ...
    def latents(self, eps: Tensor) -> Tensor: ...
    def under(self, text: Cond) -> Cond: ...


class Denoising:
    """The weighted sum of the samples' losses. Every draw comes from a sample's own key, so it is the same in any batch.

    Args:
        predict: the model.
        encode: the text encoder, for batches without cached text states.
        process: noise levels and parametrisation, on the device.
        seed: of the run.
        noise_offset, min_snr_gamma: 0 is off.
        device: where the model is.
        autocast: gives the precision's context.
    """

    def __init__(
        self,
        predict: Predict,
        encode: Encode,
        process: Process,
        *,
        seed: int,
        noise_offset: float = 0.0,
        min_snr_gamma: float = 0.0,
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._predict, self._encode, self._process = predict, encode, process
        self._seed, self._noise_offset, self._min_snr_gamma = seed, noise_offset, min_snr_gamma
        self._device, self._autocast = device, autocast

    def __call__(self, batch: Batch) -> Tensor:
        """Σ wᵢ·lᵢ over the batch, 0-dim float32."""
        keys = [ref.key for ref in batch.refs]
        shape = batch.mean.shape[1:]  # (C, h, w)
        latents = batch.latents(normal(self._seed, "latents", keys, shape)).to(self._device)
        noise = sample_noise(self._seed, keys, shape, self._noise_offset).to(self._device)
        timesteps = uniform_timesteps(self._seed, keys, NUM_TIMESTEPS).to(self._device)
        noisy = self._process.add_noise(latents, noise, timesteps)
        with self._autocast():
            text = self._encode(batch.captions) if batch.cond is None else batch.cond
            prediction = self._predict(noisy, timesteps, batch.under(text).to(self._device))
        losses = squared_error(prediction, self._process.target(latents, noise, timesteps))
        weights = batch.weight.to(self._device) * min_snr_weight(self._process, timesteps, self._min_snr_gamma)
        return (weights * losses).sum()
