"""The base model's files: its parts are loaded as they are needed, and named for the caches without being loaded."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainer.data.memo import Memo
from trainer.models.protocol import Components, Cond, Family, Part
from trainer.source_files import weight_files

if TYPE_CHECKING:
    import torch

Encode = Callable[[Sequence[str]], Cond]
Half = Literal["encoder", "decoder"]


@dataclass(frozen=True)
class Sources:
    """Where a model's parts lie: the model's file or folder, and others for its VAE and its text encoders, if any."""

    model: Path
    vae: Path | None = None
    text_encoders: tuple[Path, ...] = ()

    def of(self, part: Part) -> tuple[Path, ...]:
        """The files and folders that a part may come from."""
        if part == "vae":
            return (self.vae or self.model,)
        return (self.model,) if part == "unet" else (self.model, *self.text_encoders)


class BaseModel:
    """A model of a family, on a device. `clip_skip` says which layer of the text encoders is used."""

    def __init__(self, family: Family, sources: Sources, device: torch.device, *, clip_skip: int, memo: Memo) -> None:
        self.family, self.sources, self.device = family, sources, device
        self._clip_skip, self._memo = clip_skip, memo
        self._held: tuple[frozenset[Part], torch.dtype, Components] | None = None

    def load(self, parts: Collection[Part], dtype: torch.dtype) -> Components:
        """Load parts onto the device. Those that were just loaded to be named are not read again."""
        held, self._held = self._held, None
        if held is not None and (frozenset(parts), dtype) == held[:2]:
            return held[2]
        del held
        sources = self.sources
        return self.family.load(
            sources.model, sources.vae, parts, dtype, self.device, text_encoders=sources.text_encoders
        )  # fmt: skip

    def load_vae(self, half: Half | None = None, dtype: torch.dtype | None = None) -> Any:
        """The VAE, or only one half of it: the other is let go.

        It is in float32, or in `dtype` where it says of itself that this is safe: others give black pictures.
        """
        import torch

        vae = self.load({"vae"}, torch.float32).vae
        if half == "encoder":
            vae.decoder = vae.post_quant_conv = None
        elif half == "decoder":
            vae.encoder = vae.quant_conv = None
        return vae.to(dtype) if dtype is not None and not vae.config.get("force_upcast", True) else vae

    def identity(self, parts: Sequence[Part], dtype: torch.dtype) -> str:
        """A name for the weights and sizes of parts. It is remembered by the files: only new ones are loaded for it."""
        from trainer.data.cache import identity_of

        def weights() -> Mapping[str, torch.Tensor]:
            components = self.load(parts, dtype)
            self._held = frozenset(parts), dtype, components  # the caches will most likely need them now
            return {name: tensor for part in parts for name, tensor in _told(part, getattr(components, part)).items()}

        sources = dict.fromkeys(source for part in parts for source in self.sources.of(part))
        files = [file for source in sources for file in weight_files(source)]
        return identity_of(self._memo, files, f"{' '.join(parts)} {dtype}", weights)

    def text_identity(self, dtype: torch.dtype) -> str:
        """A name for all that texts are read with: the text encoders and the files of the tokenizer."""
        whole = hashlib.sha256(self.identity(self.family.text_parts, dtype).encode())
        for file in self.family.tokenizer_files(self.sources.model):
            whole.update(f"\n{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}".encode())
        return whole.hexdigest()

    def encoder(self, components: Components, token_length: int, weighted: bool = False) -> Encode:
        """What the text encoders of `components` say of captions, or of prompts (see `Family.encode_text`)."""
        return partial(
            self.family.encode_text, components, clip_skip=self._clip_skip, token_length=token_length, weighted=weighted
        )  # fmt: skip

    def tidy(self) -> None:
        """Give back the memory of parts that nobody holds any more."""
        self._held = None
        gc.collect()
        if self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()


def _told(part: Part, module: Any) -> dict[str, torch.Tensor]:
    """A part's weights and config under names of its own."""
    config = module.config.to_dict() if hasattr(module.config, "to_dict") else module.config
    tensors = {**module.state_dict(), "config": _as_tensor(dict(config))}
    return {f"{part}.{name}": tensor for name, tensor in tensors.items()}


def _as_tensor(config: Mapping[str, object]) -> torch.Tensor:
    """What the weights don't tell (heads, the VAE's factor), as one more tensor to be fingerprinted."""
    import torch

    return torch.tensor(list(json.dumps(config, sort_keys=True, default=str).encode()), dtype=torch.uint8)
