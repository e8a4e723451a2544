"""Trains Ember's UNet and text encoder together on cached latents, with moving averages of the weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, distributed, nn
from transformers import CLIPTextModel, CLIPTokenizer

from trainer.demo import pictures
from trainer.demo.base_training import Progress, generator_for, make_optimizers, num_processes, rank
from trainer.demo.ember import LATENT_SCALE, TOKENIZER_FOLDER, fresh_text_encoder, fresh_unet
from trainer.diffusion.process import BETA_END, BETA_START, NUM_TIMESTEPS

STEPS = 2000
BATCH = 64
RATE = 3e-3
PICTURES = 20_000
EMPTY_CAPTION_SHARE = 0.10
MIN_SNR = 5.0
AVERAGE = 0.998


@dataclass(frozen=True)
class Latents:
    """The training set: latents (N, 4, 8, 8) of deviation 1, captions as tokens (N, 77)."""

    latents: Tensor
    tokens: Tensor
    empty: Tensor  # (77,)


def train_unet(
    vae: AutoencoderKL, work: Path, seed: int, steps: int = STEPS
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """The averaged UNet and text encoder, in eval mode; `work` holds the checkpoint."""
    torch.manual_seed(seed + 1)
    unet, encoder = fresh_unet(), fresh_text_encoder()
    unet.set_attn_processor(AttnProcessor())
    unet.to(memory_format=torch.channels_last)
    live = {"unet": unet, "text_encoder": encoder}
    averaged = {name: copy.deepcopy(module) for name, module in live.items()}
    everything = live | {f"averaged_{name}": module for name, module in averaged.items()}
    progress = Progress(work / "unet.pt", everything, make_optimizers(live.values(), RATE), steps, RATE)
    progress.resume()
    data = latent_set(vae, work / "latents.pt", seed)
    parameters = [parameter for module in live.values() for parameter in module.parameters()]
    share = BATCH // num_processes()
    while progress.step < steps:
        loss = denoising_loss(unet, encoder, data, generator_for(seed, "unet", progress.step), share)
        progress.apply(loss, parameters)
        for name, module in live.items():
            follow(averaged[name], module, min(AVERAGE, (1 + progress.step) / (10 + progress.step)))
        progress.report(loss=loss.item())
    return averaged["unet"].eval(), averaged["text_encoder"].eval()


def latent_set(vae: AutoencoderKL, cache: Path, seed: int) -> Latents:
    """Draw, encode and tokenise the training set (the first process does), or read it from `cache`."""
    if rank() == 0 and not cache.exists():
        scenes = pictures.split_scenes(seed)[0]
        drawn = list(pictures.training_pairs(scenes, PICTURES, seed))
        torch.save(
            {
                "latents": encode([picture for picture, _ in drawn], vae),
                "tokens": tokenise([text for _, text in drawn] + [""]),
            },
            cache,
        )
    if num_processes() > 1:
        distributed.barrier()
    state = torch.load(cache, weights_only=True)
    return Latents(state["latents"], state["tokens"][:-1], state["tokens"][-1])


@torch.no_grad()
def encode(drawn: list, vae: AutoencoderKL, batch: int = 32) -> Tensor:
    """(N, 4, 8, 8): the mean latents of pictures, scaled to deviation 1."""
    parts = []
    for start in range(0, len(drawn), batch):
        stack = torch.from_numpy(np.stack([pictures.pixels(picture) for picture in drawn[start : start + batch]]))
        parts.append(vae.encode(stack).latent_dist.mean * LATENT_SCALE)
    return torch.cat(parts)


def tokenise(captions: list[str]) -> Tensor:
    """(N, 77) token numbers, padded with the end token as SD 1.x does."""
    tokenizer = CLIPTokenizer(
        str(TOKENIZER_FOLDER / "vocab.json"), str(TOKENIZER_FOLDER / "merges.txt"), pad_token="<|endoftext|>"
    )
    return tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids


def signal_levels() -> Tensor:
    """(1000,): the share of signal at each timestep, SD 1.x's scaled-linear schedule."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, NUM_TIMESTEPS, dtype=torch.float64).square()
    return torch.cumprod(1 - betas, dim=0).float()


def denoising_loss(
    unet: UNet2DConditionModel, encoder: CLIPTextModel, data: Latents, generator: torch.Generator, batch: int
) -> Tensor:
    """Mean over the batch of the min-SNR weighted squared error of the predicted noise (Hang and others, 2023)."""
    chosen = torch.randint(len(data.latents), (batch,), generator=generator)
    clean, tokens = data.latents[chosen], data.tokens[chosen].clone()
    tokens[torch.rand(batch, generator=generator) < EMPTY_CAPTION_SHARE] = data.empty
    timesteps = torch.randint(NUM_TIMESTEPS, (batch,), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    level = signal_levels()[timesteps].view(-1, 1, 1, 1)
    noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
    predicted = unet(noisy, timesteps, encoder(tokens).last_hidden_state).sample
    snr = (level / (1 - level)).flatten()
    weight = snr.clamp(max=MIN_SNR) / snr
    return (weight * (predicted - noise).square().mean(dim=(1, 2, 3))).mean()


@torch.no_grad()
def follow(averaged: nn.Module, live: nn.Module, keep: float) -> None:
    """Move the averaged weights towards the live ones."""
    torch._foreach_lerp_(list(averaged.parameters()), list(live.parameters()), 1 - keep)
