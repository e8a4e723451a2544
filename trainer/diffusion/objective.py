"""From a batch to each sample's loss: noise, timestep, prediction, comparison. Everything random has its own key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from trainer.diffusion.loss import min_snr_weight, squared_error
from trainer.diffusion.noise import Key, keyed_normal, keyed_timesteps, training_noise
from trainer.diffusion.process import NUM_TIMESTEPS, Process


class KeyedRef(Protocol):
    """One showing of a picture; its key names it for everything drawn at random."""

    @property
    def key(self) -> Key: ...


class LatentBatch(Protocol):
    """What the objective needs of a micro-batch (`trainer.data.batches.Batch` is one)."""

    @property
    def refs(self) -> Sequence[KeyedRef]: ...
    @property
    def mean(self) -> Tensor: ...
    @property
    def captions(self) -> Sequence[str]: ...
    @property
    def cond(self) -> Tensor | None: ...
    @property
    def weight(self) -> Tensor: ...
    def latents(self, eps: Tensor) -> Tensor: ...


class Objective:
    """Callable: a batch → weighted losses (B,) float32 on the device, ready to be summed.

    Args:
        predict: (noisy (B, C, h, w), timesteps (B,), text states (B, T, D)) → prediction (B, C, h, w).
        encode_text: captions → text states (B, T, D); used where a batch brings none.
        process: noise levels and target, on `device`.
        seed: of the run.
        dtype: that noisy latents and text states are given in.
        precision: makes the context in which predictions are computed (autocast).
    """

    def __init__(
        self,
        predict: Callable[[Tensor, Tensor, Tensor], Tensor],
        encode_text: Callable[[Sequence[str]], Tensor],
        process: Process,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        precision: Callable[[], AbstractContextManager[object]],
        noise_offset: float = 0.0,
        min_snr_gamma: float = 0.0,
    ) -> None:
        self._predict, self._encode_text, self._process = predict, encode_text, process
        self._seed, self._device, self._dtype, self._precision = seed, device, dtype, precision
        self._noise_offset, self._min_snr_gamma = noise_offset, min_snr_gamma

    def __call__(self, batch: LatentBatch) -> Tensor:
        keys = [ref.key for ref in batch.refs]
        shape = batch.mean.shape[1:]
        latents = batch.latents(keyed_normal(shape, self._seed, "latents", keys)).to(self._device)  # (B, C, h, w)
        noise = training_noise(shape, self._seed, keys, self._noise_offset).to(self._device)
        timesteps = keyed_timesteps(NUM_TIMESTEPS, self._seed, keys).to(self._device)
        noisy = self._process.add(latents, noise, timesteps).to(self._dtype)
        with self._precision():
            cond = self._encode_text(batch.captions) if batch.cond is None else batch.cond
            prediction = self._predict(noisy, timesteps, cond.to(self._device, self._dtype))
        losses = squared_error(prediction, self._process.target(latents, noise, timesteps))
        if self._min_snr_gamma:
            losses = losses * min_snr_weight(self._process.snr(timesteps), self._min_snr_gamma, self._process.prediction)
        return losses * batch.weight.to(self._device)
