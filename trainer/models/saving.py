"""Writes a loaded model for other programs: as one LDM file or as a diffusers folder, tensor by tensor.

What is written holds the same bits as what was loaded: a tensor is renamed, joined or turned, never computed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainer.files import write_json
from trainer.models import configs, keys, layouts
from trainer.models.configs import Rules, Shapes
from trainer.models.library_names import THIRDS, Link, unet_links, vae_links
from trainer.models.predictions import V_MARKER, ZERO_SNR_MARKER
from trainer.models.protocol import Components, Part
from trainer.models.safetensors_file import read_header
from trainer.models.tensor_file import write_file
from trainer.models.text_encoders import LOGIT_SCALE, TextEncoder

if TYPE_CHECKING:
    import torch

    Row = tuple[str, tuple[int, ...], str, Callable[[], torch.Tensor]]

FILE_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
STABILITY = "https://github.com/Stability-AI/generative-models"  # modelspec's word for the original code
_NOT_TOLD = {"sample_size", "upcast_attention", "projection_dim"}  # a reader does as well without them


class Facts(Protocol):
    """What is needed of a family (`trainer.models.stable_diffusion.StableDiffusion`)."""

    @property
    def rules(self) -> Rules: ...
    @property
    def text_encoders(self) -> tuple[TextEncoder, ...]: ...
    @property
    def architectures(self) -> Mapping[str, str]: ...
    @property
    def inpainting_architecture(self) -> str: ...
    @property
    def latent_channels(self) -> int: ...
    @property
    def latent_factor(self) -> int: ...


def file_dtype(dtype: torch.dtype | None) -> str:
    """The safetensors format's word for a precision; None is fp32. Raises KeyError for one that models do not have."""
    return FILE_DTYPES[str(dtype).removeprefix("torch.")] if dtype is not None else "F32"


def save_file(
    family: Facts, components: Components, path: Path, dtype: torch.dtype | None, metadata: Mapping[str, str]
) -> None:
    """See `protocol.Family.save`."""
    rows = file_rows(family, components, file_dtype(dtype))
    write_file(path, rows, {**modelspec(family, components, path.stem), **metadata}, hash_entry="modelspec.hash_sha256")
    modules = components.modules().items()
    save_config_beside(family, path, {part: _config(module) for part, module in modules})


def file_rows(family: Facts, components: Components, word: str) -> list[Row]:
    """What an LDM file of the model holds: name, shape, dtype (`word` for weights), and what gives the tensor."""
    rows: list[Row] = []
    for part, module in components.modules().items():
        rows += _part_rows(family, components, part, module, word)
    return rows + [(marker, (0,), "F32", _nothing) for marker in _markers(family, components)]


def modelspec(family: Facts, components: Components, title: str) -> dict[str, str]:
    """The header's entries by which programs tell what a model is."""
    prediction, unet = components.prediction, components.unet
    inpaints = unet is not None and unet.config.in_channels != family.latent_channels
    architecture = (inpaints and family.inpainting_architecture) or family.architectures[prediction]
    return {"format": "pt", **spec(title, architecture, prediction, _resolution(family, components))}


def spec(title: str, architecture: str, prediction: str | None, resolution: str | None) -> dict[str, str]:
    """What `modelspec.*` says of a base model that is as the original code has it; without what nobody knows."""
    told = {"v_prediction": "v", "epsilon": "epsilon"}.get(prediction or "")
    entries = {
        "sai_model_spec": "1.0.1",
        "architecture": architecture,
        "implementation": STABILITY,
        "title": title,
        "resolution": resolution,
        "prediction_type": told,
    }
    return {f"modelspec.{name}": text for name, text in entries.items() if text}


def _resolution(family: Facts, components: Components) -> str | None:
    """The size that the UNet was made for. An SD 2.x model that does not say what it predicts does not tell its size."""
    facts = components.facts
    if components.unet is None or (facts is not None and facts.prediction is None):
        return None
    size = components.unet.config.sample_size
    sides = [size, size] if isinstance(size, int) else list(size or ())  # height, width
    return "x".join(str(side * family.latent_factor) for side in reversed(sides)) or None


def _markers(family: Facts, components: Components) -> list[str]:
    """Nothing but a marker tells zero terminal SNR, or a v-prediction model of a family that mostly of the other kind."""
    markers = [ZERO_SNR_MARKER] if components.zero_snr else []
    if components.prediction == "v_prediction" and len(set(family.architectures.values())) == 1:
        markers.insert(0, V_MARKER)
    return markers


def _nothing() -> torch.Tensor:
    import torch

    return torch.empty(0)


def _part_rows(family: Facts, components: Components, part: Part, module: Any, word: str) -> Iterator[Row]:
    """The rows of a part in an LDM file."""
    tensors = dict(module.state_dict())
    if part == "unet":
        yield from _linked(unet_links(module.config), keys.LDM_UNET, tensors, word)
    elif part == "vae":
        yield from _linked(vae_links(module.config), keys.LDM_VAE, tensors, word)
    else:
        encoder = next(encoder for encoder in family.text_encoders if encoder.part == part)
        yield from _text_rows(encoder, module, tensors, components.beside, word)


def _text_rows(
    encoder: TextEncoder, module: Any, tensors: Mapping[str, Any], beside: Mapping[str, Any], word: str
) -> Iterator[Row]:
    import torch

    prefix, config = encoder.prefixes[0], module.config.to_dict()
    named = {encoder.file_name(name): tensor for name, tensor in tensors.items()}
    rows = list(_linked(encoder.links(config), prefix, named, word))
    yield from rows
    if encoder.names == "clip":
        positions = torch.arange(config["max_position_embeddings"])[None]
        yield f"{prefix}embeddings.position_ids", tuple(positions.shape), "I64", partial(_as_it_is, positions)
        return
    last = f"{prefix}transformer.resblocks.{config['num_hidden_layers'] - 1}."
    for number in range(encoder.unused_layers):  # nobody runs them, but programs want to find them
        unused = f"{prefix}transformer.resblocks.{config['num_hidden_layers'] + number}."
        for name, shape, kind, give in rows:
            if name.startswith(last):
                yield unused + name[len(last) :], shape, kind, give
    yield from _kept_rows(encoder, config["hidden_size"], {name for name, *_ in rows}, beside, word)


def _kept_rows(
    encoder: TextEncoder, width: int, written: set[str], beside: Mapping[str, Any], word: str
) -> Iterator[Row]:
    """What OpenCLIP's files have beside: as it was loaded, else what does nothing."""
    import torch

    prefix = encoder.prefixes[0]
    if f"{prefix}text_projection" not in written:
        kept = beside.get(f"{prefix}text_projection")
        give = partial(_as_it_is, kept) if kept is not None else partial(torch.eye, width)
        yield f"{prefix}text_projection", tuple(kept.shape) if kept is not None else (width, width), word, give
    scale = beside.get(f"{prefix}logit_scale", torch.tensor(LOGIT_SCALE))
    yield f"{prefix}logit_scale", tuple(scale.shape), word, partial(_as_it_is, scale)


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _linked(links: Iterator[Link], prefix: str, tensors: Mapping[str, Any], word: str) -> Iterator[Row]:
    """Rows of the tensors that are there, by LDM name; three that LDM joins make one row."""
    for link in links:
        tensor = tensors.get(link.library)
        if tensor is None:
            continue
        name, shape = prefix + link.ldm, tuple(tensor.shape)
        if link.how == "convolution":
            shape = (*shape[:2], 1, 1)
            yield name, shape, word, partial(tensor.reshape, shape)
        elif link.how == "turned":
            yield name, shape[::-1], word, tensor.t
        elif link.how == "third":
            if link.third == 0:
                yield name, (3 * shape[0], *shape[1:]), word, partial(_joined, link.library, tensors)
        else:
            yield name, shape, word, partial(_as_it_is, tensor)


def _joined(first: str, tensors: Mapping[str, Any]) -> torch.Tensor:
    import torch

    return torch.cat([tensors[first.replace("q_proj", f"{letter}_proj")] for letter in THIRDS])


# --- what a reader could not tell from the file ---


def _config(module: Any) -> Mapping[str, Any]:
    config: Mapping[str, Any] = module.config.to_dict() if hasattr(module.config, "to_dict") else module.config
    return config


def save_config_beside(family: Facts, path: Path, true: Mapping[Part, Mapping[str, Any]]) -> None:
    """Write `<stem>.json` with what a reader could not tell from an LDM file, if there is anything; see `untold`."""
    beside = untold(family, read_header(path).shapes, true)
    if beside:
        write_json(path.with_suffix(".json"), beside, indent=2)


def untold(family: Facts, shapes: Shapes, true: Mapping[Part, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What of the parts' `true` configs a reader would get wrong from the `shapes` of an LDM file, by part."""
    beside: dict[str, dict[str, Any]] = {}
    for part, config in true.items():
        derived = _derived(family, shapes, part)
        wrong = {key: config[key] for key, value in derived.items() if _plain(config.get(key, value)) != _plain(value)}
        wrong = {key: value for key, value in wrong.items() if key not in _NOT_TOLD}
        if wrong:
            beside[part] = wrong
    return beside


def _derived(family: Facts, shapes: Shapes, part: Part) -> dict[str, Any]:
    """A part's config as a reader would have it."""
    if part == "unet":
        return configs.unet_config(layouts.strip(shapes, keys.LDM_UNET), family.rules)
    if part == "vae":
        return configs.vae_config(layouts.strip(shapes, keys.LDM_VAE), family.rules)
    encoder = next(encoder for encoder in family.text_encoders if encoder.part == part)
    return encoder.config(layouts.strip(shapes, encoder.prefixes[0]), family.rules)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
