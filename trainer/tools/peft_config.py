"""PEFT's own IA3 and OFT: what its config says of layers whose tensors do not say it themselves. No torch at import."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import BadInput
from trainer.messages import say
from trainer.models.lora_names import adapter_configs
from trainer.models.patterns import NotRead, Patterns
from trainer.tools.deltas import IA3_IN, IA3_OUT, OFT_LENGTH, OFT_R, OFT_TERMS
from trainer.tools.places import Place

if TYPE_CHECKING:
    import torch

FACTORS = "ia3_l"
_SERIES_SINCE = (0, 18)  # PEFT's version; before, its series was another one
_MOST_TERMS = 1000


def add_settings(path: Path, layers: dict[str, dict[str, Place]], names: Mapping[str, str]) -> None:
    """Give PEFT's IA3 and OFT layers what `adapter_config.json` beside the file says of them.

    Args:
        path: the file.
        layers: its tensors by kohya's name of the layer; changed in place.
        names: what the file calls the layers.

    Raises BadInput if the config is missing or does not say it.
    """
    factors = [name for name, tensors in layers.items() if FACTORS in tensors]
    turns = [tensors for tensors in layers.values() if OFT_R in tensors]
    if not factors and not turns:
        return
    config = adapter_configs(path, {}).get("", {})
    kind = str(config.get("peft_type", "")).upper()
    if kind != ("IA3" if factors else "OFT") or (factors and turns):
        raise _not_said(path, "IA3" if factors else "OFT")
    for name in factors:
        place = layers[name].pop(FACTORS)
        layers[name][IA3_IN if _are_of_inputs(path, place, names[name], config) else IA3_OUT] = place
    for tensors in turns:
        tensors |= _turning(path, config)


def _are_of_inputs(path: Path, place: Place, name: str, config: Mapping[str, Any]) -> bool:
    """Whether factors are of a layer's inputs: of a linear layer their shape tells, of a convolution only the config."""
    if len(place.shape) == 2:
        return place.shape[0] == 1
    modules, module = config.get("feedforward_modules"), name.removeprefix("base_model.model.")
    if isinstance(modules, str):
        try:
            return Patterns([modules], whole=True).first(module) is not None
        except NotRead as error:
            raise _not_said(path, "IA3") from error
    if not isinstance(modules, list) or not all(isinstance(end, str) for end in modules):
        raise _not_said(path, "IA3")
    return module.endswith(tuple(modules))


def _turning(path: Path, config: Mapping[str, Any]) -> dict[str, Place]:
    """How PEFT makes rotations: by so many terms of a series (0: exactly), and from skew parts of a limited length."""
    if "oft_block_size" not in config:
        raise _not_said(path, "OFT")
    said = {OFT_TERMS: 0.0}
    if config.get("use_cayley_neumann"):
        said[OFT_TERMS] = _number(path, config.get("num_cayley_neumann_terms"))
        if not 1 <= said[OFT_TERMS] <= _MOST_TERMS or _version(config) < _SERIES_SINCE:
            raise _not_said(path, "OFT")
    if config.get("coft"):
        said[OFT_LENGTH] = _number(path, config.get("eps"))
    return {end: Place.made((), "F32", partial(_scalar, value)) for end, value in said.items()}


def _number(path: Path, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e9:
        raise _not_said(path, "OFT")
    return float(value)


def _version(config: Mapping[str, Any]) -> tuple[int, ...]:
    found = re.match(r"(\d{1,4})\.(\d{1,4})", str(config.get("peft_version", "")))
    return tuple(map(int, found.groups())) if found else (0,)


def _scalar(value: float) -> torch.Tensor:
    import torch

    return torch.tensor(value)


def _not_said(path: Path, kind: str) -> BadInput:
    what = say(
        "{path} is PEFT's {kind}, and adapter_config.json beside it is missing or says too little.",
        path=str(path),
        kind=kind,
    )
    return BadInput(what, say("Keep both files in one folder; PEFT before 0.18 computes OFT in another way."))
