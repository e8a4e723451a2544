"""What a base model predicts, and who says so: a config beside it, its metadata, marker tensors, or its family. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.models.safetensors_file import Header

V_MARKERS = ("v_pred", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
ZERO_SNR_MARKER = "ztsnr"
FAMILY_RULE = {"sd1": "epsilon", "sdxl": "epsilon"}  # SD 2.x exists in both ways and its files look the same
_WORDS = {
    "v": "v_prediction", "v_prediction": "v_prediction", "v-prediction": "v_prediction", "vpred": "v_prediction",
    "v_pred": "v_prediction", "velocity": "v_prediction",
    "epsilon": "epsilon", "eps": "epsilon", "noise": "epsilon", "e": "epsilon",
}  # fmt: skip
_YES_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Told:
    """A prediction ("epsilon", "v_prediction", None if nobody says it), its source and the model's zero terminal SNR."""

    prediction: str | None
    source: str | None
    zero_snr: bool | None


def tell(family: str, header: Header, beside: Mapping[str, Any]) -> Told:
    """Of a single file; `beside` is what the config beside it says of the model."""
    zero_snr = _zero_snr(header, beside)
    configured = _WORDS.get(str(beside.get("prediction", "")))
    if configured is not None:
        return Told(configured, "config", zero_snr)
    if (told := said(header.metadata)) is not None:
        return Told(told, "metadata", zero_snr)
    if any(name in header.tensors for name in V_MARKERS):
        return Told("v_prediction", "marker", zero_snr)
    return _by_family(family, zero_snr)


def tell_folder(family: str, prediction: str | None, zero_snr: bool | None) -> Told:
    """Of a diffusers folder, by what its scheduler's config says."""
    return Told(prediction, "config", zero_snr) if prediction is not None else _by_family(family, zero_snr)


def said(metadata: Mapping[str, str]) -> str | None:
    """What a file's metadata say of its prediction."""
    for key in ("modelspec.prediction_type", "modelspec.predict_key", "ss_prediction_type", "prediction_type"):
        word = _WORDS.get(metadata.get(key, "").strip().lower())
        if word is not None:
            return word
    if metadata.get("ss_v_parameterization", "").lower() == "true":
        return "v_prediction"
    architecture = metadata.get("modelspec.architecture", "")
    return {"stable-diffusion-v2-768-v": "v_prediction", "stable-diffusion-v2-512": "epsilon"}.get(
        architecture.partition("/")[0]
    )


def _by_family(family: str, zero_snr: bool | None) -> Told:
    rule = FAMILY_RULE.get(family)
    return Told(rule, "family" if rule else None, zero_snr)


def _zero_snr(header: Header, beside: Mapping[str, Any]) -> bool | None:
    if isinstance(beside.get("zero_snr"), bool):
        return bool(beside["zero_snr"])
    if ZERO_SNR_MARKER in header.tensors:
        return True
    for key in ("modelspec.zero_terminal_snr", "ss_zero_terminal_snr", "zero_terminal_snr"):
        if header.metadata.get(key, "").lower() in _YES_NO:
            return _YES_NO[header.metadata[key].lower()]
    return None
