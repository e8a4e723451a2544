"""What a model family is to the rest of the trainer: facts, and five things it can do. No torch at import.

Training, sampling and caching speak to a `Family` and never ask which one it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainer.models.header import ModelFacts
    from trainer.models.lora_names import Speller

Part = Literal["unet", "vae", "text_encoder", "text_encoder_2"]
PARTS: tuple[Part, ...] = ("unet", "vae", "text_encoder", "text_encoder_2")
Attention = Literal["sdpa", "xformers", "plain"]


@dataclass(frozen=True)
class Cond:
    """What a prediction is made under, for B samples: the text, and what some families want to know beside it.

    Attributes:
        states: text states (B, T, D).
        pooled: one vector for the whole text (B, P), None where the family has none.
        sizes: float32 (B, 6), in pixels: original height and width, crop's top and left, target height and width.
        concat: (B, Ce, h, w), joined to the noisy latents along the channels: for an inpainting UNet the mask (1 where
            it is to be painted) and the latents of the masked picture, in diffusers' order.
    """

    states: torch.Tensor
    pooled: torch.Tensor | None = None
    sizes: torch.Tensor | None = None
    concat: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.states)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Cond:
        values = (self.states, self.pooled, self.sizes, self.concat)
        return Cond(*(None if value is None else change(value) for value in values))  # type: ignore[arg-type]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Cond:
        """On a device; `dtype` is for all but the sizes, whose numbers a short float could not hold."""
        sizes = None if self.sizes is None else self.sizes.to(device)
        return replace(self._each(lambda value: value.to(device, dtype)), sizes=sizes)

    def select(self, indices: Sequence[int]) -> Cond:
        """The samples of these numbers, in this order; a number may come more than once."""
        return self._each(lambda value: value[list(indices)])

    def silent(self) -> Cond:
        """The same with zeros for what the text says."""
        import torch

        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return replace(self, states=torch.zeros_like(self.states), pooled=pooled)

    @staticmethod
    def stack(conds: Sequence[Cond]) -> Cond:
        """The samples of all, one after the other; they must agree in what they have and in T."""
        import torch

        rows = zip(*((cond.states, cond.pooled, cond.sizes, cond.concat) for cond in conds), strict=True)
        return Cond(*(None if row[0] is None else torch.cat(row) for row in rows))  # type: ignore[arg-type]


@dataclass
class Components:
    """The loaded parts of a model, each None where it was not asked for. All are frozen and in eval mode.

    `unet` is a diffusers UNet2DConditionModel, `vae` an AutoencoderKL, the text encoders are transformers'
    CLIPTextModel or CLIPTextModelWithProjection. Set a part to None to let its memory go.
    """

    unet: Any = None
    vae: Any = None
    text_encoder: Any = None
    tokenizer: Any = None
    facts: ModelFacts | None = None
    prediction: str = "epsilon"
    text_encoder_2: Any = None
    zero_snr: bool = False  # made for a schedule whose last step holds no signal at all
    beside: dict[str, Any] = field(default_factory=dict)  # small tensors of its file that no part has a place for

    def modules(self) -> dict[Part, Any]:
        """The parts that are present."""
        return {part: module for part in PARTS if (module := getattr(self, part)) is not None}


class Family(Protocol):
    """A model family. Instances are stateless; everything loaded lives in `Components`."""

    name: str  # "sd1"
    title: str  # for people: "Stable Diffusion 1.x"
    latent_channels: int
    latent_factor: int  # pixels a latent cell spans, 8
    native_resolution: int
    token_lengths: tuple[int, ...]
    clip_skips: range  # those it can be used with
    @property
    def zeros_without_negative(self) -> bool:
        """Whether zeros stand for an empty negative prompt, and not what the text encoders say of it."""
        ...

    @property
    def text_parts(self) -> tuple[Part, ...]:
        """Its text encoders."""
        ...

    @property
    def base_version(self) -> str:
        """sd-scripts' word for the base, "sd_v1", where the model predicts what most of the family do."""
        ...

    @property
    def architecture(self) -> str:
        """modelspec's word for the base, "stable-diffusion-v1", where the model predicts what most of the family do."""
        ...

    @property
    def implementation(self) -> str:
        """modelspec's word for whose names a LoRA's layers have."""
        ...

    def architecture_of(self, prediction: str) -> str:
        """modelspec's word for a base with this prediction ("epsilon", "v_prediction")."""
        ...

    def base_version_of(self, prediction: str) -> str:
        """sd-scripts' word for such a base: "sd_v2_v"."""
        ...

    def load(
        self,
        source: Path,
        vae: Path | None = None,
        parts: Collection[Part] = PARTS,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        text_encoders: Sequence[Path] = (),
    ) -> Components:
        """Load parts of the model at `source` (an LDM file or a diffusers folder), tensor by tensor, no network.

        Args:
            source: the model.
            vae: a separate VAE (a file with LDM's or diffusers' names, a checkpoint, a folder) instead of the model's.
            parts: what to load; parts not named are not read, nor are those that the family does not have.
            dtype: of the weights in memory; None is float32. A VAE that overflows in fp16 is float32 then.
            device: where they go, each as soon as it is read.
            text_encoders: files or folders to take text encoders from instead of the model's: checkpoints, diffusers
                folders, or encoders alone in the family's order.

        Raises BadInput with a sentence if the model is not one of this family, is damaged, or lacks a part.
        """
        ...

    def tokenizer_files(self, source: Path) -> tuple[Path, ...]:
        """The files that the tokenizer of the model at `source` is read from."""
        ...

    def encode_text(
        self,
        components: Components,
        texts: Sequence[str],
        clip_skip: int = 1,
        token_length: int = 75,
        weighted: bool = False,
    ) -> Cond:
        """What the family needs to know of texts: states (B, T, D), and `pooled` if it has it. See `trainer.models.text`.

        Gradients flow if a text encoder trains.

        Args:
            components: with the text encoders and the tokenizer.
            texts: captions, or prompts.
            clip_skip: counts as in sd-scripts: 1 is the family's own layer; of `clip_skips`.
            token_length: of `token_lengths` for captions, T = token_length + 2; `text.ANY_LENGTH` for prompts.
            weighted: whether brackets in captions weigh words as in prompts.
        """
        ...

    def predict(
        self, components: Components, noisy: torch.Tensor, timesteps: torch.Tensor, cond: Cond
    ) -> torch.Tensor:
        """The UNet's output (B, C, h, w) for noisy latents (B, C, h, w) and timesteps (B,), under `cond`."""
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
        """Write the parts present as one LDM .safetensors, and `<stem>.json` beside it if its sizes need one.

        One tensor is in memory at a time beside the model's own. `metadata` is added to the header's `modelspec.*`.
        """
        ...

    def save_folder(self, components: Components, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write the parts present as a diffusers folder; one that is there is replaced when all is written."""
        ...

    def adapter_modules(
        self, components: Components, part: Part, convolutions: bool = False
    ) -> dict[str, nn.Module]:
        """The layers that an adapter acts on, by their name in kohya's files: the transformers' Linear and 1×1 layers.

        With `convolutions` also the UNet's resnets and samplers.
        """
        ...

    def lora_speller(self, components: Components) -> Speller:
        """Translates the names that other programs' LoRA files have for the layers of this model."""
        ...

    def checkpoint_gradients(self, components: Components, parts: Collection[Part]) -> None:
        """Trade time for memory: recompute activations of these parts in the backward pass."""
        ...

    def set_attention(self, components: Components, kind: Attention) -> None:
        """Choose the attention kernel of the UNet (and of the VAE, if loaded)."""
        ...


def is_inpainting(in_channels: int | None, family: Family) -> bool:
    """Whether a UNet of so many input channels is told of a mask and of the picture hidden under it as well."""
    return in_channels == 2 * family.latent_channels + 1
