"""What a base model predicts, and who says so: a config beside it, marker tensors, its metadata, or its family. No torch.

Image programs go by the markers and do not look at the metadata, in which merges leave what is no longer so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.models.safetensors_file import Header

PREDICTIONS = ("epsilon", "v_prediction")
V_MARKER, ZERO_SNR_MARKER = "v_pred", "ztsnr"  # tensors by which programs tell such models
EDM_MARKERS = ("edm_mean", "edm_vpred.sigma_max")  # other noise levels, and told to the UNet in another way
_OTHER_SCHEDULES = ("EDM", "FlowMatch")  # what the class of a folder's scheduler begins with
FAMILY_RULE = {"sd1": "epsilon", "sdxl": "epsilon"}  # SD 2.x exists in both ways and its files look the same
_WORDS = {
    "v": "v_prediction", "v_prediction": "v_prediction", "v-prediction": "v_prediction", "vpred": "v_prediction",
    "v_pred": "v_prediction", "velocity": "v_prediction",
    "epsilon": "epsilon", "eps": "epsilon", "noise": "epsilon", "e": "epsilon",
}  # fmt: skip
_YES_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Told:
    """A prediction ("epsilon", "v_prediction", None if nobody says it), its source and the model's zero terminal SNR.

    `contradicted`: another source says the other one. `foreign`: the name of a prediction or noise of another kind.
    """

    prediction: str | None
    source: str | None
    zero_snr: bool | None
    contradicted: bool = False
    foreign: str | None = None


def tell(family: str, header: Header, beside: Mapping[str, Any]) -> Told:
    """Of a single file; `beside` is what the config beside it says of the model."""
    zero_snr = _zero_snr(header, beside)
    if any(name in header.tensors for name in EDM_MARKERS):
        return Told(None, "marker", zero_snr, foreign="EDM")
    sources = {
        "config": _WORDS.get(str(beside.get("prediction", ""))),
        "marker": "v_prediction" if V_MARKER in header.tensors else None,
        "metadata": said(header.metadata),
    }
    told = {source: prediction for source, prediction in sources.items() if prediction is not None}
    if not told:
        return _by_family(family, zero_snr)
    source, prediction = next(iter(told.items()))
    return Told(prediction, source, zero_snr, contradicted=len(set(told.values())) > 1)


def tell_folder(family: str, prediction: str | None, zero_snr: bool | None) -> Told:
    """Of a diffusers folder, by what its scheduler's config says."""
    if prediction is None:
        return _by_family(family, zero_snr)
    if prediction not in PREDICTIONS:
        return Told(None, "config", zero_snr, foreign=prediction)
    return Told(prediction, "config", zero_snr)


def said_by_scheduler(name: str, prediction: str) -> str | None:
    """What a folder's scheduler, its class and its `prediction_type`, says of the model: one of another noise, its class."""
    return name if name.startswith(_OTHER_SCHEDULES) else prediction or None


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
