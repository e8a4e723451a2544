"""Asks a UNet what it predicts, the noise or v, where its file does not say: from its answers to noise that we made.

In x_t = √ᾱ · x_0 + √(1 - ᾱ) · ε an epsilon model answers ε at every noise level. A v model answers √ᾱ · ε - √(1 - ᾱ) · x_0,
which has as much of ε in it as is left of the picture: nearly all where there is little noise, nearly nothing where there
is almost only noise. So the share of ε in the answer at the noisy end tells them apart, and the share at the other end
tells whether the UNet is one that removes noise at all.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainer.base_model import BaseModel, Sources
from trainer.data.memo import Memo
from trainer.device import choose_device
from trainer.diffusion.noise import generator
from trainer.diffusion.process import Process
from trainer.errors import BadInput
from trainer.family_rules import family_of
from trainer.guess import VERSION, Guess, judge
from trainer.messages import say
from trainer.models.header import ModelFacts, base_problem, inspect_file
from trainer.models.protocol import is_inpainting
from trainer.models.text import ANY_LENGTH
from trainer.parametrisation import remembered

if TYPE_CHECKING:
    from trainer.models.protocol import Components, Cond, Family

NOISY, CLEAR = 979, 199  # timesteps: hardly any picture; hardly any noise
SIDE = 32  # of the latents asked about
SAMPLES = 2


def probe_file(path: Path) -> tuple[ModelFacts, Guess]:
    """What a model's file says, and what its UNet seems to predict; on the graphics card if there is one.

    Raises BadInput if it is no model that can be trained.
    """
    facts = inspect_file(path)
    family = family_of(facts)
    problem = base_problem(facts, has_vae=True)
    if problem is not None or family is None:
        what = say("{path} cannot be tested: {problem}", path=str(path), problem=problem or facts.summary)
        raise BadInput(what, say("Choose a base model of Stable Diffusion 1.x, 2.x or SDXL."))
    source, device = facts.path, choose_device("auto")
    memo = Memo()

    def ask() -> Guess:
        model = BaseModel(family, Sources(source), device, clip_skip=1, memo=memo)
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        components = model.load({"unet", *family.text_parts}, dtype)
        with torch.no_grad():
            return probe(components, family, model.encoder(components, ANY_LENGTH)([""]))

    return facts, remembered(memo, source, ask)


def probe(components: Components, family: Family, empty: Cond) -> Guess:
    """Two calls of the UNet on made-up latents, under the empty prompt (`empty`, one sample). Nothing is changed."""
    shares = [_share(components, family, empty, timestep) for timestep in (NOISY, CLEAR)]
    return judge(*shares)


def _share(components: Components, family: Family, empty: Cond, timestep: int) -> float:
    """How much of ε is in the answer at a timestep: the factor of its least squares fit."""
    weight = next(components.unet.parameters())
    latents, noise = _smooth(family), torch.randn(_shape(family), generator=generator(0, VERSION))
    steps = torch.full((SAMPLES,), timestep)
    noisy = Process().add_noise(latents, noise, steps)
    cond = _cond(components, family, empty)
    with torch.no_grad():
        answer = family.predict(
            components, noisy.to(weight), steps.to(weight.device), cond.to(weight.device, weight.dtype)
        ).float().cpu()  # fmt: skip
    return float((answer * noise).sum() / noise.square().sum())


def _shape(family: Family) -> tuple[int, ...]:
    return SAMPLES, family.latent_channels, SIDE, SIDE


def _smooth(family: Family) -> Tensor:
    """Latents of no picture, but smooth as a picture's are, of about their deviation."""
    coarse = torch.randn(SAMPLES, family.latent_channels, 4, 4, generator=generator(0, VERSION, 1))
    return torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic", align_corners=False)


def _cond(components: Components, family: Family, empty: Cond) -> Cond:
    side = float(SIDE * family.latent_factor)
    cond = replace(empty.select([0] * SAMPLES), sizes=torch.tensor([[side, side, 0.0, 0.0, side, side]] * SAMPLES))
    if not is_inpainting(components.unet.config.in_channels, family):
        return cond
    mask = torch.ones(SAMPLES, 1, SIDE, SIDE)
    return replace(cond, concat=torch.cat([mask, torch.zeros(_shape(family))], dim=1))
