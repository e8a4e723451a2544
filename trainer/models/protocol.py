"""What a model family is to the rest of the trainer: facts, and five things it can do. No torch at import.

Training, sampling and caching speak to a `Family` and never ask which one it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainer.models.header import ModelFacts

Part = Literal["unet", "vae", "text_encoder"]
PARTS: tuple[Part, ...] = ("unet", "vae", "text_encoder")
Attention = Literal["sdpa", "xformers", "plain"]


@dataclass
class Components:
    """The loaded parts of a model, each None where it was not asked for. All are frozen and in eval mode.

    `unet` is a diffusers UNet2DConditionModel, `vae` an AutoencoderKL, `text_encoder` a transformers CLIPTextModel.
    Set a part to None to let its memory go.
    """

    unet: Any = None
    vae: Any = None
    text_encoder: Any = None
    tokenizer: Any = None
    facts: ModelFacts | None = None
    prediction: str = "epsilon"


class Family(Protocol):
    """A model family. Instances are stateless; everything loaded lives in `Components`."""

    name: str  # "sd1"
    title: str  # for people: "Stable Diffusion 1.x"
    latent_channels: int
    latent_factor: int  # pixels a latent cell spans, 8
    native_resolution: int
    token_lengths: tuple[int, ...]
    architecture: str  # modelspec's word for the base: "stable-diffusion-v1"
    base_version: str  # sd-scripts' word: "sd_v1"

    def load(
        self,
        source: Path,
        vae: Path | None = None,
        parts: Collection[Part] = PARTS,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> Components:
        """Load parts of the model at `source` (LDM .safetensors or diffusers folder), tensor by tensor, no network.

        Args:
            source: the model.
            vae: a separate VAE (LDM or diffusers .safetensors, or a diffusers VAE folder) instead of the model's.
            parts: what to load; parts not named are not read.
            dtype: of the weights in memory; None is float32.
            device: where they go, each as soon as it is read.

        Raises BadInput with a sentence if the model is not one of this family, is damaged, or lacks a part.
        """
        ...

    def encode_text(
        self, components: Components, captions: Sequence[str], clip_skip: int = 1, token_length: int = 75
    ) -> torch.Tensor:
        """Text states (B, T, D) of captions, T = token_length + 2; gradients flow if the text encoder trains.

        `clip_skip` counts as in sd-scripts: 1 is the last layer, 2 the one before it; the final norm is applied.
        """
        ...

    def predict(
        self, components: Components, noisy: torch.Tensor, timesteps: torch.Tensor, cond: torch.Tensor
    ) -> torch.Tensor:
        """The UNet's output (B, C, h, w) for noisy latents (B, C, h, w), timesteps (B,) and text states (B, T, D)."""
        ...

    def encode_pictures(self, vae: nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation (B, C, h, w) float32 of the latents of pictures (B, 3, H, W) in [-1, 1].

        Both are already multiplied by the VAE's scaling factor: latents = mean + deviation × noise. No gradients.
        """
        ...

    def decode(self, vae: nn.Module, latents: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) float32 in about [-1, 1] of scaled latents (B, C, h, w). No gradients."""
        ...

    def save(
        self,
        components: Components,
        path: Path,
        dtype: torch.dtype | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write the parts present as one LDM .safetensors, and `<stem>.json` beside it if its sizes need one."""
        ...

    def adapter_modules(self, components: Components, part: Part) -> dict[str, nn.Module]:
        """The Linear and 1×1 convolutions that an adapter acts on, by their name in kohya's files, in file order."""
        ...

    def checkpoint_gradients(self, components: Components, parts: Collection[Part]) -> None:
        """Trade time for memory: recompute activations of these parts in the backward pass."""
        ...

    def set_attention(self, components: Components, kind: Attention) -> None:
        """Choose the attention kernel of the UNet (and of the VAE, if loaded)."""
        ...
