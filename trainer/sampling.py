"""Draws pictures from prompts with diffusers' schedulers; noise comes from the CPU, so a seed gives the same everywhere."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from trainer.diffusion.process import BETA_END, BETA_START, NUM_TIMESTEPS


@dataclass(frozen=True)
class SamplerRow:
    """A sampler: diffusers' class, its arguments, and its name in the WebUI."""

    title: str
    module: str
    class_name: str
    arguments: dict[str, Any]


# Timesteps are spaced as the WebUI spaces them for the same sampler.
SAMPLERS: dict[str, SamplerRow] = {
    "euler_a": SamplerRow(
        "Euler a",
        "scheduling_euler_ancestral_discrete",
        "EulerAncestralDiscreteScheduler",
        {"timestep_spacing": "linspace"},
    ),
    "ddim": SamplerRow(
        "DDIM",
        "scheduling_ddim",
        "DDIMScheduler",
        {"timestep_spacing": "leading", "steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False},
    ),
    "dpmpp_2m_karras": SamplerRow(
        "DPM++ 2M Karras",
        "scheduling_dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        {"timestep_spacing": "linspace", "algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": True},
    ),
}


@dataclass(frozen=True)
class PicturePrompt:
    """One picture to draw; sides are multiples of 8 pixels."""

    prompt: str
    negative: str = ""
    width: int = 512
    height: int = 512
    steps: int = 20
    cfg: float = 7.0
    seed: int = 1
    sampler: str = "euler_a"


class Interrupted(Exception):  # noqa: N818  (not an error: the user wants to go on with something else)
    """Drawing was broken off because `should_stop` said so."""


@dataclass(frozen=True)
class Artist:
    """What draws: functions of the model, and where it lives.

    Args:
        predict: (noisy (B, C, h, w), timesteps (B,), text states (B, T, D)) → prediction (B, C, h, w).
        encode_text: prompts → text states (B, T, D).
        decode: latents (B, C, h, w) → pictures (B, 3, H, W) in [-1, 1].
        precision: makes the context in which predictions are computed (autocast).
        latent_shape: (width, height) in pixels → (C, h, w).
    """

    predict: Callable[[Tensor, Tensor, Tensor], Tensor]
    encode_text: Callable[[Sequence[str]], Tensor]
    decode: Callable[[Tensor], Tensor]
    precision: Callable[[], AbstractContextManager[object]]
    latent_shape: Callable[[int, int], tuple[int, int, int]]
    prediction: str = "epsilon"
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32

    def draw(
        self,
        prompts: Sequence[PicturePrompt],
        *,
        batch_size: int = 1,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Image.Image]:
        """Draw each prompt, in order. Neighbours of the same size and sampler are drawn together, up to `batch_size`.

        A picture depends on its own prompt and seed alone (to rounding, for other batch sizes). Raises Interrupted.
        """
        for portion in _portions(prompts, batch_size):
            latents = self.draw_latents(portion, should_stop=should_stop)
            for number in range(len(portion)):  # one at a time: the VAE needs more memory than the UNet
                yield to_picture(self.decode(latents[number : number + 1]))

    @torch.no_grad()
    def draw_latents(
        self, prompts: Sequence[PicturePrompt], *, should_stop: Callable[[], bool] = lambda: False
    ) -> Tensor:
        """Latents (B, C, h, w) float32 of prompts that share everything but texts and seeds. Raises Interrupted."""
        first = prompts[0]
        scheduler = make_scheduler(first.sampler, self.prediction)
        scheduler.set_timesteps(first.steps, device=self.device)
        shape = self.latent_shape(first.width, first.height)
        generators = [torch.Generator().manual_seed(prompt.seed) for prompt in prompts]
        latents = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(self.device)
        latents = latents * scheduler.init_noise_sigma
        with self.precision():
            cond = self._cond(prompts)
        for timestep in scheduler.timesteps:
            if should_stop():
                raise Interrupted
            guided = self._guided(scheduler.scale_model_input(latents, timestep), timestep, cond, first.cfg)
            noise = {"generator": generators} if _takes_generator(scheduler) else {}
            latents = scheduler.step(guided, timestep, latents, return_dict=False, **noise)[0]
        return latents

    def _cond(self, prompts: Sequence[PicturePrompt]) -> Tensor:
        """Text states (2B, T, D): negative ones first. Without guidance (CFG 1) the positive ones alone."""
        texts = [prompt.prompt for prompt in prompts]
        if prompts[0].cfg != 1.0:
            texts = [prompt.negative for prompt in prompts] + texts
        return self.encode_text(texts).to(self.device, self.dtype)

    def _guided(self, noisy: Tensor, timestep: Tensor, cond: Tensor, cfg: float) -> Tensor:
        """Classifier-free guidance: uncond + cfg × (cond − uncond), in float32."""
        times = cond.shape[0] // noisy.shape[0]
        noisy = torch.cat([noisy] * times).to(self.dtype)
        with self.precision():
            prediction = self.predict(noisy, timestep.to(self.device).expand(noisy.shape[0]), cond).float()
        if times == 1:
            return prediction
        negative, positive = prediction.chunk(2)
        return negative + cfg * (positive - negative)


def make_scheduler(sampler: str, prediction: str) -> Any:
    """diffusers' scheduler for a row of SAMPLERS on Stable Diffusion's noise levels. Raises KeyError."""
    row = SAMPLERS[sampler]
    kind = getattr(importlib.import_module(f"diffusers.schedulers.{row.module}"), row.class_name)
    return kind(
        num_train_timesteps=NUM_TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        **row.arguments,
    )


def _takes_generator(scheduler: Any) -> bool:
    """DDIM (without eta) and DPM++ 2M draw no noise; Euler a does, from each picture's own generator."""
    return type(scheduler).__name__ == "EulerAncestralDiscreteScheduler"


def _portions(prompts: Sequence[PicturePrompt], batch_size: int) -> Iterator[list[PicturePrompt]]:
    """Runs of neighbours that can be drawn in one batch."""
    portion: list[PicturePrompt] = []
    for prompt in prompts:
        if portion and (len(portion) == batch_size or _geometry(prompt) != _geometry(portion[0])):
            yield portion
            portion = []
        portion.append(prompt)
    if portion:
        yield portion


def _geometry(prompt: PicturePrompt) -> PicturePrompt:
    return replace(prompt, prompt="", negative="", seed=0)


def to_picture(pixels: Tensor) -> Image.Image:
    """An RGB picture of pixels (1, 3, H, W) in about [-1, 1]."""
    values = ((pixels[0].float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).contiguous().cpu().numpy())


def parameters_text(prompt: PicturePrompt, model_name: str, clip_skip: int, model_hash: str | None = None) -> str:
    """The text that the WebUI writes into a PNG and reads back from it."""
    lines = [prompt.prompt]
    if prompt.negative:
        lines.append(f"Negative prompt: {prompt.negative}")
    entries = {
        "Steps": prompt.steps,
        "Sampler": SAMPLERS[prompt.sampler].title,
        "CFG scale": f"{prompt.cfg:g}",
        "Seed": prompt.seed,
        "Size": f"{prompt.width}x{prompt.height}",
        **({"Model hash": model_hash[:10]} if model_hash else {}),
        "Model": model_name.replace(",", " "),
        **({"Clip skip": clip_skip} if clip_skip > 1 else {}),
        "RNG": "CPU",
    }
    lines.append(", ".join(f"{name}: {value}" for name, value in entries.items()))
    return "\n".join(lines)


def png_info(parameters: str) -> PngInfo:
    """The chunk that carries `parameters`."""
    info = PngInfo()
    info.add_itxt("parameters", parameters)
    return info
