"""Imports the model classes of diffusers and transformers, and as little else of them as can be.

diffusers imports every optional package that it finds (bitsandbytes, peft, scipy: half of ten seconds on a slow
machine) for features that models alone don't need. They look absent to it while its model classes are imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

_NOT_NEEDED = (
    "_bitsandbytes_available",
    "_peft_available",
    "_scipy_available",
    "_kernels_available",
    "_torchao_available",
)


@contextmanager
def _without_extras() -> Iterator[None]:
    import diffusers.utils.import_utils as switches

    seen = {name: getattr(switches, name) for name in _NOT_NEEDED if hasattr(switches, name)}
    _set(switches, dict.fromkeys(seen, False))
    try:
        yield
    finally:
        _set(switches, seen)


def _set(module: ModuleType, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(module, name, value)


def unet_class() -> Any:
    """diffusers' UNet2DConditionModel."""
    with _without_extras():
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    return UNet2DConditionModel


def vae_class() -> Any:
    """diffusers' AutoencoderKL."""
    with _without_extras():
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    return AutoencoderKL


def clip_classes(projected: bool = False) -> tuple[Any, Any]:
    """transformers' CLIPTextModel (or the one with a projection) and CLIPTextConfig."""
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    return CLIPTextModelWithProjection if projected else CLIPTextModel, CLIPTextConfig


def clip_tokenizer(folder: Path) -> Any:
    """transformers' CLIP tokenizer of a folder with vocab.json and merges.txt, or with tokenizer.json."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    tokenizer.model_max_length = 77  # vocab.json and merges.txt do not say; programs that get this tokenizer pad to it
    return tokenizer
