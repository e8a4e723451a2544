"""Trains Ember's VAE: 64 px pictures to 8 x 8 latents and back, then scales the latents to deviation 1 as SD 1.x has it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from trainer.demo import pictures
from trainer.demo.base_training import Progress, generator_for, make_optimizers, num_processes, rank
from trainer.demo.ember import LATENT_SCALE, fresh_vae

STEPS = 2800
BATCH = 8
RATE = 3e-3
CLUTTER_SHARE = 0.3
RADIUS_PX = {"small": 10.5, "large": 17.5}  # finer than Ember's own pictures, so that those are well within reach
POLISH_STEPS = 1500
POLISH_RATE = 2e-3
TIE_STEPS = 600  # the loss that ties latents to the small picture fades over these steps


def train_vae(work: Path, seed: int, steps: int = STEPS) -> AutoencoderKL:
    """A trained VAE with scaled latents, in eval mode; `work` holds its checkpoint and lets a broken run go on."""
    torch.manual_seed(seed)
    vae = fresh_vae()
    torch.nn.init.constant_(vae.quant_conv.bias[4:], -8.0)  # log-variance: begin almost without noise
    progress = Progress(work / "vae.pt", {"vae": vae}, make_optimizers([vae], RATE), steps, RATE)
    progress.resume()
    vae.train()
    scenes = pictures.split_scenes(seed)[0]
    while progress.step < steps:
        batch = picture_batch(scenes, seed, progress.step)
        moments, rebuilt = through(vae, batch, generator_for(seed, "vae", progress.step))
        loss = vae_loss(batch, moments, rebuilt, tie=max(0.0, 1 - progress.step / TIE_STEPS))
        progress.apply(loss, list(vae.parameters()))
        error = F.mse_loss(rebuilt.detach(), batch).item() / 4  # pixels run from -1 to 1
        progress.report(loss=loss.item(), psnr_db=-10 * float(np.log10(error)))
    polish_decoder(vae, work, seed)
    vae.eval()
    drawn = [picture for picture, _ in pictures.training_pairs(scenes, 512, seed)]
    fold_scale(vae, torch.from_numpy(np.stack([pictures.pixels(picture) for picture in drawn])))
    return vae


def polish_decoder(vae: AutoencoderKL, work: Path, seed: int, steps: int = POLISH_STEPS) -> None:
    """Train the decoder alone on latents that no longer move: sharper pictures at half the cost of a step."""
    decoder: dict[str, nn.Module] = {"post_quant_conv": vae.post_quant_conv, "decoder": vae.decoder}
    progress = Progress(work / "decoder.pt", decoder, make_optimizers(decoder.values(), POLISH_RATE), steps, POLISH_RATE)
    progress.resume()
    scenes = pictures.split_scenes(seed)[0]
    parameters = [parameter for module in decoder.values() for parameter in module.parameters()]
    while progress.step < steps:
        batch = picture_batch(scenes, seed, STEPS + progress.step)
        with torch.no_grad():
            latents = vae.quant_conv(vae.encoder(batch))[:, :4]
        rebuilt = vae.decoder(vae.post_quant_conv(latents))
        progress.apply(F.l1_loss(rebuilt, batch) + 0.5 * F.mse_loss(rebuilt, batch), parameters)
        progress.report(psnr_db=-10 * float(np.log10(F.mse_loss(rebuilt.detach(), batch).item() / 4)))


def picture_batch(scenes: Sequence[pictures.Scene], seed: int, step: int) -> Tensor:
    """(B, 3, 64, 64) in [-1, 1]: this process's share of the batch, clutter in three of ten."""
    rng = random.Random(f"vae-{seed}-{step}-{rank()}")
    drawn = [
        pictures.clutter(rng) if rng.random() < CLUTTER_SHARE else pictures.draw(rng.choice(scenes), rng, RADIUS_PX)
        for _ in range(BATCH // num_processes())
    ]
    return torch.from_numpy(np.stack([pictures.pixels(picture) for picture in drawn]))


def through(vae: AutoencoderKL, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Moments (B, 8, 8, 8) and the picture rebuilt from a sample of them."""
    moments = vae.quant_conv(vae.encoder(batch))
    mean, log_variance = moments.chunk(2, dim=1)
    noise = torch.randn(mean.shape, generator=generator)
    latents = mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * noise
    return moments, vae.decoder(vae.post_quant_conv(latents))


def vae_loss(batch: Tensor, moments: Tensor, rebuilt: Tensor, tie: float) -> Tensor:
    """L1 + 0.5 MSE + 1e-4 KL, and at first a term that ties three latent channels to the 8 x 8 picture."""
    mean, log_variance = moments.chunk(2, dim=1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    loss = F.l1_loss(rebuilt, batch) + 0.5 * F.mse_loss(rebuilt, batch) + 1e-4 * divergence
    if tie > 0:
        loss = loss + tie * F.mse_loss(mean[:, :3], F.avg_pool2d(batch, 8))
    return loss


@torch.no_grad()
def fold_scale(vae: AutoencoderKL, batch: Tensor) -> None:
    """Fold the latents' mean and deviation into the 1 x 1 convolutions: x 0.18215 then gives mean 0, deviation 1.

    The mean rows of quant_conv are shifted and scaled, its log-variance rows get the same scale, and post_quant_conv
    undoes it; what the VAE rebuilds stays the same.
    """
    mean = vae.quant_conv(vae.encoder(batch)).chunk(2, dim=1)[0]
    centre = mean.mean(dim=(0, 2, 3))
    factor = 1 / (mean.std(dim=(0, 2, 3)) * LATENT_SCALE)
    before, after = vae.quant_conv, vae.post_quant_conv
    after.bias += after.weight[:, :, 0, 0] @ centre
    after.weight /= factor.view(1, 4, 1, 1)
    before.weight[:4] *= factor.view(4, 1, 1, 1)
    before.bias[:4] = (before.bias[:4] - centre) * factor
    before.bias[4:] += 2 * factor.log()
