"""Every sampler on data whose best prediction is a formula: how far what it draws is from what it should draw.

Each cell of the latents is a draw from two narrow Gaussians, so a perfect model can be written down for every noise level.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.config.run import KARRAS, Prompt
from trainer.diffusion.process import Process
from trainer.models.protocol import Components, Cond
from trainer.sampling import SCHEDULERS, draw_latents

CENTRES, DEVIATION = torch.tensor([-1.0, 1.5]), 0.15
COARSE = 0.09  # mean distance of what is drawn from the data; more steps bring every sampler to 0.03 (there are 16384 cells)


class Perfect:
    """A family whose model answers with the v that is right on average."""

    latent_channels, latent_factor = 4, 8
    zeros_without_negative = False

    def __init__(self, zero_snr: bool) -> None:
        self._levels = Process("v_prediction", zero_snr=zero_snr).alphas_cumprod.double()

    def predict(self, components: Components, noisy: Tensor, timesteps: Tensor, cond: Cond) -> Tensor:
        low = timesteps[0].floor().long()  # Euler a asks between two timesteps, as it does of a UNet
        level = torch.lerp(self._levels[low], self._levels[(low + 1).clamp(max=999)], timesteps[0].double() - low)
        x = noisy.double()
        variance = level * DEVIATION**2 + 1 - level
        away = x[..., None] - level.sqrt() * CENTRES
        chances = torch.softmax(-(away**2) / (2 * variance), -1)
        clean = (chances * (CENTRES + level.sqrt() * DEVIATION**2 / variance * away)).sum(-1)
        noise = (x - level.sqrt() * clean) / (1 - level).sqrt()
        return (level.sqrt() * noise - (1 - level).sqrt() * clean).float()


def distance(sampler: str, steps: int, zero_snr: bool) -> float:
    """Mean distance between the sorted cells of a drawn picture and as many sorted draws from the data."""
    unet: Any = torch.nn.Linear(1, 1)
    unet.config = SimpleNamespace(in_channels=4)
    components = Components(unet, prediction="v_prediction", zero_snr=zero_snr)
    request = Prompt(prompt="x", width=512, height=512, steps=steps, cfg=1.0, seed=3, sampler=sampler)
    family: Any = Perfect(zero_snr)
    drawn = draw_latents(components, family, [request], lambda texts: Cond(torch.zeros(len(texts), 1, 1)))
    generator = torch.Generator().manual_seed(9)
    which = torch.randint(0, 2, (drawn.numel(),), generator=generator)
    wanted = CENTRES[which] + DEVIATION * torch.randn(drawn.numel(), generator=generator)
    return float((drawn.flatten().sort()[0] - wanted.sort()[0]).abs().mean())


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_twenty_steps_are_enough_but_for_karras_from_pure_noise(sampler: str) -> None:
    """Karras' ladder has 13 of 20 steps above σ = 14.6 then, and 7 for all else; see `family_rules.samplers_fit`."""
    assert distance(sampler, 20, zero_snr=False) < COARSE
    assert (distance(sampler, 20, zero_snr=True) > COARSE) == (sampler in KARRAS)


@pytest.mark.parametrize("sampler", KARRAS)
@pytest.mark.parametrize(("steps", "zero_snr"), [(40, True), (500, False)])
def test_steps_that_fall_on_one_timestep_are_all_taken(sampler: str, steps: int, zero_snr: bool) -> None:
    """The first two fall on timestep 999: diffusers would begin at the second, and ask for one beyond the last."""
    assert distance(sampler, steps, zero_snr) < 0.05
