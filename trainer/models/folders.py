"""Recognises diffusers folders: which model lies there, and whether it is whole. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainer.messages import Message, say
from trainer.models.folder_files import read_json, weight_files
from trainer.models.layouts import DISTILLED_SDXL, Found
from trainer.models.opening import NotWeights, shown
from trainer.models.predictions import said_by_scheduler
from trainer.models.weights_file import read_header

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
TEXT_PARTS = {"sd1": ("text_encoder",), "sd2": ("text_encoder",), "sdxl": ("text_encoder", "text_encoder_2")}

_PIPELINES = (  # longer names first
    ("StableDiffusionXL", "sdxl"), ("StableDiffusion3", "sd3"), ("Flux", "flux"), ("StableDiffusion", "sd1"),
    ("LatentConsistencyModel", "sd1"),
)  # fmt: skip
_NATIVE = {"sd1": 512, "sd2": 512, "sdxl": 1024}


def recognise_folder(folder: Path) -> Found | None:
    """What a diffusers folder holds, None if it is none. Raises OSError, NotWeights and BadConfig."""
    if not (folder / "model_index.json").is_file():
        return _part_folder(folder)
    index = read_json(folder / "model_index.json")
    name = str(index.get("_class_name", "?"))
    family = next((family for sign, family in _PIPELINES if name.startswith(sign)), None)
    if family in (None, "sd3", "flux"):
        return Found("base", family, name=shown(name))
    unet = _config(folder, "unet")
    family = _unet_family(unet, family or "")
    if family == "sdxl" and _is_distilled(unet):
        return Found("base", None, name=DISTILLED_SDXL)
    parts = frozenset(part for part in PARTS if (folder / part / "config.json").is_file())
    scheduler = _config(folder, "scheduler", "scheduler_config.json")
    zero_snr = scheduler.get("rescale_betas_zero_snr")
    return Found(
        "base",
        family,
        parts,
        _whole_number(unet.get("in_channels"), 4),
        name=shown(name),
        prediction=said_by_scheduler(*(shown(str(scheduler.get(key) or "")) for key in ("_class_name", "prediction_type"))),
        zero_snr=zero_snr if isinstance(zero_snr, bool) else None,
        native_resolution=8 * _whole_number(unet.get("sample_size"), _NATIVE.get(family, 512) // 8),
        lacks=_lacking(folder, parts),
    )


def _unet_family(unet: Mapping[str, Any], family: str) -> str:
    """SD 1, SD 2, SDXL or the refiner by the UNet's config: pipelines of one name serve several of them."""
    if family == "sdxl" or unet.get("addition_embed_type") == "text_time":
        width, adds = unet.get("cross_attention_dim"), unet.get("projection_class_embeddings_input_dim")
        return "sdxl_refiner" if isinstance(width, int) and adds == width + 5 * 256 else "sdxl"
    return "sd2" if unet.get("use_linear_projection") else "sd1"


def _is_distilled(unet: Mapping[str, Any]) -> bool:
    """Whether blocks of one level differ in depth, or the middle one is missing: no file of SDXL has a place for that."""
    depths = unet.get("transformer_layers_per_block")
    is_uneven = isinstance(depths, list) and any(isinstance(depth, list) for depth in depths)
    return is_uneven or unet.get("mid_block_type", "") is None


def _lacking(folder: Path, parts: Iterable[str]) -> Message | None:
    """What is wrong with the weights of the first part that is not whole, None if all are."""
    return next((text for part in sorted(parts) if (text := _weights_missing(folder / part))), None)


def _config(folder: Path, part: str, name: str = "config.json") -> dict[str, Any]:
    path = folder / part / name
    return read_json(path) if path.is_file() else {}


def _part_folder(folder: Path) -> Found | None:
    """One part of a diffusers folder: a VAE can be used alone, of the others it is said what they are."""
    if not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    listed = config.get("architectures")
    name = str(config.get("_class_name") or (listed[0] if isinstance(listed, list) and listed else "?"))
    if name == "AutoencoderKL":
        channels = _whole_number(config.get("latent_channels"), 4)
        return Found("vae", None, frozenset({"vae"}), latent_channels=channels, lacks=_weights_missing(folder))
    if name == "UNet2DConditionModel":
        return Found("part", _unet_family(config, ""), frozenset({"unet"}), name="unet")
    if name.startswith("CLIPTextModel"):
        return Found("part", None, frozenset({"text_encoder"}), name="text_encoder")
    if (folder / "adapter_config.json").is_file() or name == "?":
        return None
    return Found("part", None, name=shown(name))


def _weights_missing(folder: Path) -> Message | None:
    """What is wrong with the weights of one part, None if nothing is."""
    files = weight_files(folder)
    for path in files:
        if not path.is_file():
            return say("{folder}/ lacks its piece {file}", folder=folder.name, file=path.name)
        try:
            read_header(path, located=False)
        except NotWeights as error:
            return say("{file}: {reason}", file=f"{folder.name}/{path.name}", reason=error.why)
    return None if files else say("{folder}/ has no weights", folder=folder.name)


def _whole_number(value: Any, otherwise: int) -> int:
    return value if type(value) is int and 0 < value < 100_000 else otherwise
