"""Writes a loaded model as a diffusers folder: configs, weights, tokenizers, noise schedule, and the list of them all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.files import atomic_folder
from trainer.models.folder_files import TOKENIZER_FILES
from trainer.models.protocol import Components, Part
from trainer.models.saving import file_dtype
from trainer.models.tensor_file import write_file

if TYPE_CHECKING:
    import torch

    from trainer.models.saving import Row
    from trainer.models.stable_diffusion import StableDiffusion

_UNET, _VAE = "UNet2DConditionModel", "AutoencoderKL"
_PADDING_FILES = ("tokenizer_config.json", "special_tokens_map.json")  # they name the token that fills a chunk
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_PADS = {None: _END, 0: "!"}  # a text encoder's padding token → its word in CLIP's vocabulary


def save_folder(
    family: StableDiffusion,
    components: Components,
    folder: Path,
    dtype: torch.dtype | None = None,
    give: Callable[[Part, str, torch.Tensor], Row] | None = None,
) -> None:
    """See `protocol.Family.save_folder`.

    `give` makes the row of a tensor by its part, its name in the part's file, and the module's tensor: for modules
    without memory, whose tensors come from elsewhere.
    """
    word = file_dtype(dtype)
    give = give or (lambda part, name, tensor: (name, tuple(tensor.shape), word, partial(_as_it_is, tensor)))
    index: dict[str, Any] = {}
    with atomic_folder(folder) as temporary:
        for part, module in components.modules().items():
            index[part] = _write_part(family, temporary / part, part, module, give)
        for encoder in family.text_encoders:
            if getattr(components, encoder.part) is not None:
                name = encoder.part.replace("text_encoder", "tokenizer")
                _write_tokenizer(components, temporary / name, name, _PADS[encoder.pad])
                index[name] = ["transformers", "CLIPTokenizer"]
        index["scheduler"] = _write_scheduler(family, components, temporary / "scheduler")
        _write_json(temporary / "model_index.json", _index(family, components, index))


def _index(family: StableDiffusion, components: Components, parts: dict[str, Any]) -> dict[str, Any]:
    """diffusers' list of a pipeline's parts."""
    inpaints = components.unet is not None and components.unet.config.in_channels != family.latent_channels
    name = family.pipeline.replace("Pipeline", "InpaintPipeline") if inpaints else family.pipeline
    return {"_class_name": name, "_diffusers_version": _version(), **family.pipeline_entries, **dict(sorted(parts.items()))}


def _version() -> str:
    from importlib.metadata import version

    return version("diffusers")


def _write_part(
    family: StableDiffusion, folder: Path, part: Part, module: Any, give: Callable[[Part, str, torch.Tensor], Row]
) -> list[str]:
    """A part's config and weights; returns which class of which library it is."""
    encoder = next((encoder for encoder in family.text_encoders if encoder.part == part), None)
    named = encoder.file_name if encoder else str
    rows = [give(part, named(name), tensor) for name, tensor in module.state_dict().items()]
    if encoder is None:
        write_file(folder / "diffusion_pytorch_model.safetensors", rows, {"format": "pt"})
        (folder / "config.json").write_text(module.to_json_string(), encoding="utf-8", newline="\n")
        return ["diffusers", _UNET if part == "unet" else _VAE]
    write_file(folder / "model.safetensors", rows, {"format": "pt"})
    name = "CLIPTextModelWithProjection" if encoder.pooled else "CLIPTextModel"
    _write_json(folder / "config.json", {**module.config.to_diff_dict(), "architectures": [name], **_sizes(module.config)})
    return ["transformers", name]


def _sizes(config: Any) -> dict[str, Any]:
    """The sizes in full, whatever a library's version takes for granted."""
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "projection_dim",
        "max_position_embeddings", "hidden_act", "layer_norm_eps",
    )  # fmt: skip
    return {"model_type": "clip_text_model", **{name: getattr(config, name) for name in names}}


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _write_tokenizer(components: Components, folder: Path, name: str, pad: str) -> None:
    """The files of the tokenizer as it was loaded; where CLIP's own stood in, what programs want to find beside them."""
    folder.mkdir(parents=True)
    source = Path(components.tokenizer.name_or_path)
    own = source.with_name(name)
    source = own if own.is_dir() else source
    for file in TOKENIZER_FILES:
        if (source / file).is_file() and (source == own or file not in _PADDING_FILES):
            shutil.copyfile(source / file, folder / file)
    if not (folder / "tokenizer_config.json").is_file():
        _write_json(folder / "tokenizer_config.json", _tokenizer_config(pad))
    if not (folder / "special_tokens_map.json").is_file():
        words = {"bos_token": _token(_BEGIN), "eos_token": _token(_END), "unk_token": _token(_END), "pad_token": pad}
        _write_json(folder / "special_tokens_map.json", words)


def _tokenizer_config(pad: str) -> dict[str, Any]:
    return {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": _BEGIN,
        "eos_token": _END,
        "unk_token": _END,
        "pad_token": pad,
        "model_max_length": 77,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
    }


def _token(content: str) -> dict[str, Any]:
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def _write_scheduler(family: StableDiffusion, components: Components, folder: Path) -> list[str]:
    """The noise schedule that all families here were trained with, and what the model predicts."""
    folder.mkdir(parents=True)
    config = {
        "_class_name": family.scheduler,
        "_diffusers_version": _version(),
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "steps_offset": 1,
        "prediction_type": components.prediction,
        "timestep_spacing": "trailing" if components.zero_snr else "leading",
        "rescale_betas_zero_snr": components.zero_snr,
    }
    if family.scheduler == "DDIMScheduler":
        config |= {"clip_sample": False, "set_alpha_to_one": False}
    _write_json(folder / "scheduler_config.json", config)
    return ["diffusers", family.scheduler]


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
