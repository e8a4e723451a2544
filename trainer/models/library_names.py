"""Which tensor of an LDM file is which of the libraries' files, for every part, and how the one becomes the other. No torch.

The libraries' names here are those of a part's own file in a diffusers folder: text encoders have their `text_model` level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainer.models import keys

Config = Mapping[str, Any]
How = Literal["same", "convolution", "turned", "third"]
THIRDS = "qkv"  # what OpenCLIP joins in one tensor, in its order
_OPEN_CLIP = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_ENDS = ("weight", "bias")


@dataclass(frozen=True)
class Link:
    """A pair of names.

    Attributes:
        ldm: the tensor's name in an LDM file, without the part's prefix.
        library: its name in the part's own file.
        how: "convolution": a matrix there is a 1×1 convolution in LDM; "turned": transposed; "third": rows of a tensor
            that LDM joins of three; "same" otherwise.
        third: which of the three.
    """

    ldm: str
    library: str
    how: How = "same"
    third: int = 0


def unet_links(config: Config) -> Iterator[Link]:
    """All pairs of a UNet; tensors that a model may lack (shortcuts, biases) among them."""
    for ldm, library in keys.unet_modules(config).items():
        for end in _ENDS:
            yield Link(f"{ldm}.{end}", f"{library}.{end}")


def vae_links(config: Config) -> Iterator[Link]:
    """All pairs of a VAE."""
    for ldm, library in keys.vae_modules(config).items():
        for end in _ENDS:
            name = f"{library}.{end}"
            yield Link(f"{ldm}.{end}", name, "convolution" if keys.is_vae_attention(name) else "same")


def clip_links(config: Config) -> Iterator[Link]:
    """All pairs of a text encoder that LDM files keep with transformers' names; `ldm` begins after `text_model.`."""
    for name in keys.clip_modules(config):
        for end in _ENDS:
            yield Link(f"{name}.{end}", f"text_model.{name}.{end}")


def open_clip_links(config: Config) -> Iterator[Link]:
    """All pairs of a text encoder that LDM files keep with OpenCLIP's names."""
    yield Link("token_embedding.weight", "text_model.embeddings.token_embedding.weight")
    yield Link("positional_embedding", "text_model.embeddings.position_embedding.weight")
    yield Link("text_projection", "text_projection.weight", "turned")
    for end in _ENDS:
        yield Link(f"ln_final.{end}", f"text_model.final_layer_norm.{end}")
    for layer in range(config["num_hidden_layers"]):
        ldm, library = f"transformer.resblocks.{layer}", f"text_model.encoder.layers.{layer}"
        for end in _ENDS:
            for theirs, ours in _OPEN_CLIP.items():
                yield Link(f"{ldm}.{theirs}.{end}", f"{library}.{ours}.{end}")
            for number, letter in enumerate(THIRDS):
                name = f"{library}.self_attn.{letter}_proj.{end}"
                yield Link(f"{ldm}.attn.in_proj_{end}", name, "third", number)
