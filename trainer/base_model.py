"""The base model's files: its parts are loaded as they are needed, and named for the caches without being loaded."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data.memo import Memo
from trainer.models.protocol import Components, Cond, Family, Part

if TYPE_CHECKING:
    import torch

Encode = Callable[[Sequence[str]], Cond]


class BaseModel:
    """A model of a family, on a device.

    Args:
        source: the model's file or folder.
        vae: a separate VAE, or None.
        clip_skip, token_length: how captions are read.
    """

    def __init__(
        self,
        family: Family,
        source: Path,
        vae: Path | None,
        device: torch.device,
        *,
        clip_skip: int,
        token_length: int,
        memo: Memo,
    ) -> None:
        self.family, self.device = family, device
        self._source, self._vae, self._memo = source, vae, memo
        self._clip_skip, self._token_length = clip_skip, token_length
        self._held: tuple[frozenset[Part], torch.dtype, Components] | None = None

    def load(self, parts: Collection[Part], dtype: torch.dtype) -> Components:
        """Load parts onto the device. Those that were just loaded to be named are not read again."""
        held, self._held = self._held, None
        if held is not None and (frozenset(parts), dtype) == held[:2]:
            return held[2]
        del held
        return self.family.load(self._source, self._vae, parts, dtype, self.device)

    def identity(self, parts: Sequence[Part], dtype: torch.dtype) -> str:
        """A name for the weights and sizes of parts. It is remembered by the files: only new ones are loaded for it."""
        from trainer.data.cache import identity_of

        def weights() -> Mapping[str, torch.Tensor]:
            components = self.load(parts, dtype)
            self._held = frozenset(parts), dtype, components  # the caches will most likely need them now
            return {name: tensor for part in parts for name, tensor in _told(part, getattr(components, part)).items()}

        source = self._vae if "vae" in parts and self._vae is not None else self._source
        return identity_of(self._memo, weight_files(source), f"{' '.join(parts)} {dtype}", weights)

    def encoder(self, components: Components) -> Encode:
        """What the text encoders of `components` say of captions."""
        return partial(
            self.family.encode_text, components, clip_skip=self._clip_skip, token_length=self._token_length
        )  # fmt: skip

    def tidy(self) -> None:
        """Give back the memory of parts that nobody holds any more."""
        self._held = None
        gc.collect()
        if self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()


def weight_files(source: Path) -> list[Path]:
    """The files on which a model's weights and sizes depend: the file and a config beside it, or a folder's."""
    if source.is_dir():
        return sorted(path for path in source.rglob("*") if path.suffix in (".safetensors", ".json"))
    beside = (source.with_suffix(ending) for ending in (".json", ".yaml"))
    return [source, *(path for path in beside if path.is_file())]


def _told(part: Part, module: Any) -> dict[str, torch.Tensor]:
    """A part's weights and config under names of its own."""
    config = module.config.to_dict() if hasattr(module.config, "to_dict") else module.config
    tensors = {**module.state_dict(), "config": _as_tensor(dict(config))}
    return {f"{part}.{name}": tensor for name, tensor in tensors.items()}


def _as_tensor(config: Mapping[str, object]) -> torch.Tensor:
    """What the weights don't tell (heads, the VAE's factor), as one more tensor to be fingerprinted."""
    import torch

    return torch.tensor(list(json.dumps(config, sort_keys=True, default=str).encode()), dtype=torch.uint8)
