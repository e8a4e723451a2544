"""What a family says of its text encoders: where files keep them, and which of their states the family uses.

No torch at import.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from trainer.models import configs
from trainer.models.configs import Config, Rules, Shapes
from trainer.models.library_names import Link, clip_links, open_clip_links
from trainer.models.protocol import Part
from trainer.models.text import Reader

if TYPE_CHECKING:
    import torch

LOGIT_SCALE = 4.6052  # ln 100, where every CLIP ends: nothing that draws pictures reads it


@dataclass(frozen=True)
class TextEncoder:
    """One of a family's text encoders.

    Attributes:
        part: its place among the parts.
        prefixes: where LDM files keep it; the first is what is written.
        names: whose names it has there.
        lora: what its layers' names begin with in kohya's LoRA files.
        layer: whose states the family uses, counted from the end (1: the last), where clip skip is 1.
        norm: whether the final norm is applied to them.
        pooled: whether it also gives one vector for the whole text, through a projection.
        unused_layers: layers at its end that LDM files carry and nobody runs.
        full_layers: how many it has at full size, those among them.
        pad: the token that fills a chunk, None for the end token.
    """

    part: Part
    prefixes: tuple[str, ...]
    names: Literal["clip", "open_clip"]
    lora: str
    layer: int = 1
    norm: bool = True
    pooled: bool = False
    unused_layers: int = 0
    full_layers: int = 0
    pad: int | None = None

    def prefix_in(self, shapes: Shapes) -> str | None:
        """Under which of its prefixes a file keeps it ("" for OpenCLIP's own files), None if it has none."""
        if self.names == "clip":
            return next((prefix for prefix in self.prefixes if f"{prefix}embeddings.token_embedding.weight" in shapes), None)
        return next((prefix for prefix in (*self.prefixes, "") if f"{prefix}token_embedding.weight" in shapes), None)

    def config(self, shapes: Shapes, rules: Rules) -> Config:
        """transformers' config; `shapes` without prefix. Raises UnknownLayout."""
        if self.names == "clip":
            return configs.clip_config(shapes, rules)
        return self.without_unused(configs.open_clip_config(shapes, rules), carried=True)

    def library_config(self, shapes: Shapes, rules: Rules) -> Config:
        """transformers' config from the shapes of a file with the library's names, `text_model.` taken away."""
        config = configs.clip_config(shapes, rules)
        if self.names == "open_clip":
            config["hidden_act"] = "gelu"
        if "text_projection.weight" in shapes:
            config["projection_dim"] = shapes["text_projection.weight"][0]
        return self.without_unused(config)

    def without_unused(self, config: Config, *, carried: bool = False) -> Config:
        """A config of all layers that a file has, with the number of those that are run.

        At full size their number tells whether the unused ones are among them, whoever wrote the file; of other sizes LDM
        files carry them and the libraries' do not.
        """
        count = config.get("num_hidden_layers")
        if not self.unused_layers or not isinstance(count, int):
            return config
        if count in (self.full_layers, self.full_layers - self.unused_layers):
            carried = count == self.full_layers
        return {**config, "num_hidden_layers": max(1, count - self.unused_layers)} if carried else config

    def links(self, config: Mapping[str, Any]) -> Iterator[Link]:
        """Names in LDM files (without prefix) and in the libraries' files."""
        every = clip_links(config) if self.names == "clip" else open_clip_links(config)
        return (link for link in every if self.pooled or link.library != "text_projection.weight")

    def module_name(self, name: str) -> str:
        """A tensor's name in the loaded module from that in a library's file, whichever library's version wrote it."""
        bare = name.removeprefix("text_model.")
        return bare if not self.pooled or bare.startswith("text_projection.") else f"text_model.{bare}"

    def file_name(self, name: str) -> str:
        """A tensor's name in a library's file, as every program reads it, from that in the loaded module."""
        return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"

    def reader(self, encoder: Any, clip_skip: int) -> Reader:
        """How texts are read by the loaded encoder."""
        return Reader(partial(self._run, encoder, self.layer + clip_skip - 1), self.pad)

    def _run(
        self, encoder: Any, layer: int, ids: torch.Tensor, ends: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See `Reader.run`. The pooled vector is the projected, normed last state at the end token."""
        clip = encoder.text_model if self.pooled else encoder
        here = ids.to(encoder.device)
        if layer == 1 and self.norm and not self.pooled:
            return clip(input_ids=here).last_hidden_state, None
        output = clip(input_ids=here, output_hidden_states=True)
        states = output.hidden_states[-layer]
        if self.norm:
            states = clip.final_layer_norm(states)
        if not self.pooled:
            return states, None
        last = output.last_hidden_state[range(len(ids)), ends.to(encoder.device)]
        return states, encoder.text_projection(last)
