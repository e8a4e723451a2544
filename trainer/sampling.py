"""Draws pictures: with diffusers' schedulers and noise from the CPU, so that a seed means the same noise everywhere.

`sample` draws any list of prompts in batches; `trainer.previews` uses it while training, the demo for its scores.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from trainer.diffusion.process import BETA_END, BETA_START, NUM_TIMESTEPS
from trainer.models.prompt_editing import Timed, parts, timed
from trainer.models.protocol import Components, Cond, Family, is_inpainting
from trainer.models.text import ANY_LENGTH

THUMBNAIL_PX = 256
_BETAS = {
    "num_train_timesteps": NUM_TIMESTEPS,
    "beta_start": BETA_START,
    "beta_end": BETA_END,
    "beta_schedule": "scaled_linear",
}


class Request(Protocol):
    """One picture to draw; `trainer.config.run.Prompt` is one."""

    @property
    def prompt(self) -> str: ...
    @property
    def negative(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def cfg(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def sampler(self) -> str: ...


Encode = Callable[[Sequence[str]], Cond]
Look = Callable[[], None]  # called between denoising steps; may raise to stop


Settings = dict[str, Any]  # what a scheduler is told: betas, parametrisation


def _euler_a(settings: Settings) -> Any:
    from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler

    return EulerAncestralDiscreteScheduler(**settings)


def _ddim(settings: Settings) -> Any:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    # As SD 1.x has it, or with the last, pure noise among the steps (Lin et al. 2023, section 3.3).
    spacing = {"timestep_spacing": "trailing"} if settings["rescale_betas_zero_snr"] else {"steps_offset": 1}
    return DDIMScheduler(**settings, clip_sample=False, set_alpha_to_one=False, **spacing)


def _dpmpp_2m_karras(settings: Settings) -> Any:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(**settings, use_karras_sigmas=True)


SCHEDULERS: dict[str, Callable[[Settings], Any]] = {
    "euler_a": _euler_a,
    "ddim": _ddim,
    "dpmpp_2m_karras": _dpmpp_2m_karras,
}
SAMPLER_TITLES = {"euler_a": "Euler a", "ddim": "DDIM", "dpmpp_2m_karras": "DPM++ 2M Karras"}


def make_scheduler(sampler: str, prediction: str = "epsilon", zero_snr: bool = False) -> Any:
    """diffusers' scheduler of a sampler. Raises KeyError for a name that is not in SCHEDULERS."""
    return SCHEDULERS[sampler]({**_BETAS, "prediction_type": prediction, "rescale_betas_zero_snr": zero_snr})


def sample(
    components: Components,
    family: Family,
    requests: Sequence[Request],
    *,
    encode: Encode | None = None,
    batch_size: int = 1,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    look: Look = lambda: None,
) -> list[Image.Image]:
    """One picture for each request, in order. What a picture shows does not depend on its neighbours in the batch
    (but for rounding).

    Args:
        components: UNet and VAE, and the text encoder unless `encode` is given; where the UNet is, pictures are drawn.
        family: of the components.
        requests: those alike in size, steps, scale and sampler are drawn together.
        encode: what the text encoders say of prompts; those of `components` with clip skip 1 if not given.
        batch_size: pictures at once.
        autocast: gives the precision's context.
        look: called before every denoising step.

    No global generator is touched, and no gradient is kept.
    """
    encoder = encode or (lambda texts: family.encode_text(components, texts, token_length=ANY_LENGTH))
    pictures: dict[int, Image.Image] = {}
    with torch.no_grad():
        for numbers in _portions(requests, batch_size):
            chosen = [requests[number] for number in numbers]
            latents = draw_latents(components, family, chosen, encoder, autocast, look)
            for number, latent in zip(numbers, latents, strict=True):
                pictures[number] = to_picture(family.decode(components.vae, latent[None])[0])
    return [pictures[number] for number in range(len(requests))]


def draw_latents(
    components: Components,
    family: Family,
    requests: Sequence[Request],
    encode: Encode,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    look: Look = lambda: None,
) -> Tensor:
    """Finished latents (B, C, h, w) float32 of requests alike in all but prompts and seeds."""
    first = requests[0]
    device = next(components.unet.parameters()).device
    scheduler = make_scheduler(first.sampler, components.prediction, components.zero_snr)
    scheduler.set_timesteps(first.steps, device=device)
    if hasattr(scheduler, "set_begin_index"):  # else it looks for the first timestep, and takes the second of two alike
        scheduler.set_begin_index(0)
    script = _script(requests, family)
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    noise = [torch.randn(_shape(family, request), generator=own) for request, own in zip(requests, generators, strict=True)]
    latents = torch.stack(noise).to(device) * scheduler.init_noise_sigma
    extra = {} if first.sampler == "dpmpp_2m_karras" else {"generator": generators}
    with autocast():
        text = _texts(script, encode)
    cond = _with_picture(text, components, family, first).to(device)
    for step, timestep in enumerate(scheduler.timesteps):
        look()
        noisy = scheduler.scale_model_input(latents, timestep)
        with autocast():
            prediction = _guided(components, family, noisy, timestep, cond.select(script.rows(step)), script)
        latents = scheduler.step(prediction.float(), timestep, latents, return_dict=False, **extra)[0]
    return latents


def _shape(family: Family, request: Request) -> tuple[int, int, int]:
    return family.latent_channels, request.height // family.latent_factor, request.width // family.latent_factor


def drawn_texts(requests: Iterable[Request]) -> list[str]:
    """Every text that the pictures will be drawn with: the stages and parts of their prompts, and the negatives'."""
    texts: dict[str, None] = {}
    for request in requests:
        for prompt, _ in parts(request.prompt, request.steps):
            texts |= dict.fromkeys(prompt.texts())
        texts |= dict.fromkeys(timed(request.negative, request.steps).texts())
    return list(texts)


@dataclass(frozen=True)
class _Script:
    """What is said in each step, of B requests.

    Attributes:
        without: the negatives (B), or none where nothing guides.
        lines: whose picture, what is said of it, and how much that counts: as often as its weight times the scale.
        silent: whether zeros stand for an empty negative.
    """

    without: tuple[Timed, ...]
    lines: tuple[tuple[int, Timed, float], ...]
    silent: bool

    @property
    def texts(self) -> list[str | None]:
        """All that is ever said, None for silence."""
        lines = [line for _, line, _ in self.lines]
        return list(dict.fromkeys([*(text for line in lines for text in line.texts()), *self._negatives]))

    @property
    def _negatives(self) -> list[str | None]:
        return [None if self._is_silent(line) else text for line in self.without for text in line.texts()]

    def _is_silent(self, line: Timed) -> bool:
        return self.silent and not any(line.texts())

    def rows(self, step: int) -> list[int]:
        """Which of `texts` are said in a step (from 0): the negatives, then the lines."""
        numbers = {text: number for number, text in enumerate(self.texts)}
        without = [None if self._is_silent(line) else line.at(step) for line in self.without]
        return [numbers[text] for text in (*without, *(line.at(step) for _, line, _ in self.lines))]


def _script(requests: Sequence[Request], family: Family) -> _Script:
    """Of requests alike in steps and scale."""
    steps, scale = requests[0].steps, requests[0].cfg
    lines = tuple(
        (number, line, weight * scale)
        for number, request in enumerate(requests)
        for line, weight in parts(request.prompt, steps)
    )
    guides = len(lines) > len(requests) or any(weight != 1 for *_, weight in lines)
    without = tuple(timed(request.negative, steps) for request in requests) if guides else ()
    return _Script(without, lines, family.zeros_without_negative)


def _texts(script: _Script, encode: Encode) -> Cond:
    """What the text encoders say of the script's texts, in their order."""
    texts = script.texts
    said = [text for text in texts if text is not None]
    cond = encode(said)
    if None not in texts:
        return cond
    rows = Cond.stack([cond, cond.select([0]).silent()])
    return rows.select([len(said) if text is None else said.index(text) for text in texts])


def _with_picture(text: Cond, components: Components, family: Family, request: Request) -> Cond:
    """The picture's size, uncropped; for an inpainting model a mask over all of it, and the latents of plain grey."""
    height, width = request.height, request.width
    sizes = torch.tensor([[height, width, 0, 0, height, width]] * len(text), dtype=torch.float32)
    if not is_inpainting(components.unet.config.in_channels, family):
        return replace(text, sizes=sizes)
    hidden, _ = family.encode_pictures(components.vae, torch.zeros(1, 3, height, width))
    concat = torch.cat([torch.ones_like(hidden[:, :1]), hidden], dim=1)
    return replace(text, sizes=sizes, concat=concat.expand(len(text), -1, -1, -1))


def _guided(
    components: Components, family: Family, noisy: Tensor, timestep: Tensor, cond: Cond, script: _Script
) -> Tensor:
    """The prediction (B, C, h, w) under guidance: without + Σ weight × scale × (with - without), of each picture's lines."""
    owners = [*range(len(script.without)), *(owner for owner, *_ in script.lines)]
    inputs = noisy[owners]
    prediction = family.predict(components, inputs, timestep.expand(len(inputs)), cond)
    if not script.without:
        return prediction
    answers = prediction.float()
    without = answers[: len(noisy)]
    guided = without.clone()
    for answer, (owner, _, weight) in zip(answers[len(noisy) :], script.lines, strict=True):
        guided[owner] += weight * (answer - without[owner])
    return guided


def _portions(requests: Sequence[Request], batch_size: int) -> Iterator[list[int]]:
    """Numbers of requests that can be drawn together, at most `batch_size` in each."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for number, one in enumerate(requests):
        alike.setdefault((one.width, one.height, one.steps, one.cfg, one.sampler), []).append(number)
    for numbers in alike.values():
        yield from (numbers[at : at + batch_size] for at in range(0, len(numbers), batch_size))


def to_picture(pixels: Tensor) -> Image.Image:
    """A picture from (3, H, W) in [-1, 1]; what is beyond (or not a number) is cut off."""
    scaled = ((torch.nan_to_num(pixels.float()).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(scaled.permute(1, 2, 0).contiguous().cpu().numpy())


def parameters_text(request: Request, *, model: str, clip_skip: int = 1) -> str:
    """What the WebUI writes into a PNG's `parameters`, so that its PNG Info page reads ours."""
    lines = [request.prompt]
    if request.negative:
        lines.append(f"Negative prompt: {request.negative}")
    facts = {
        "Steps": request.steps,
        "Sampler": SAMPLER_TITLES[request.sampler],
        "CFG scale": f"{request.cfg:g}",
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": model.replace(",", " "),
        "Clip skip": clip_skip,
        "RNG": "CPU",
    }
    return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in facts.items())])


def png_bytes(picture: Image.Image, parameters: str) -> bytes:
    """The picture as a PNG with that text."""
    info = PngInfo()
    info.add_itxt("parameters", parameters) if not parameters.isascii() else info.add_text("parameters", parameters)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def thumbnail_bytes(picture: Image.Image) -> bytes:
    """The picture as a small JPEG."""
    small = picture.copy()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
