"""The files that programs read beside a model. What is in them already stays, unless the user says something new of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.errors import BadInput
from trainer.files import write_json
from trainer.messages import say
from trainer.targets.base import Card

_WEBUI_VERSIONS = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL", "flux": "Flux"}
_CIVITAI_BASES = {"sd1": "SD 1.5", "sd2": "SD 2.1", "sdxl": "SDXL 1.0", "sd3": "SD 3", "flux": "Flux.1 D"}
_CIVITAI_KINDS = {
    "lora": "LORA", "checkpoint": "Checkpoint", "embedding": "TextualInversion", "vae": "VAE",
    "hypernetwork": "Hypernetwork",
}  # fmt: skip


def webui_notes(card: Card) -> None:
    """`<stem>.json` of A1111 and Forge, for LoRAs: what a click on the card adds, and how strongly."""
    if card.kind == "lora":
        _merge(card.beside(".json"), _webui_blank(), _webui_known(card))


def swarm_notes(card: Card) -> None:
    """SwarmUI reads the WebUI's `<stem>.json`; older versions know the words only as `TrainedWords`."""
    if card.kind != "lora":
        return
    new = _webui_known(card)
    if card.words:
        new["TrainedWords"] = [card.words]
    if card.weight:
        new["modelspec.lora_default_weight"] = str(card.weight)
    _merge(card.beside(".json"), _webui_blank(), new)


def matrix_notes(card: Card) -> None:
    """`<stem>.cm-info.json` of StabilityMatrix. No ids: the model is on no site."""
    blank: dict[str, Any] = {
        "ModelName": card.name, "ModelDescription": "", "Nsfw": False, "Tags": [], "VersionName": "",
        "ImportedAt": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    new: dict[str, Any] = {"ModelType": _CIVITAI_KINDS[card.kind], "Hashes": {"SHA256": _sha256(card.weights)}}
    if card.family in _CIVITAI_BASES:
        new["BaseModel"] = _CIVITAI_BASES[card.family]
    if card.words:
        new["TrainedWords"] = [card.words]
    _merge(card.beside(".cm-info.json"), blank, new)


def _webui_blank() -> dict[str, Any]:
    return {"description": "", "sd version": "Unknown", "activation text": "", "preferred weight": 0.0,
            "negative text": "", "notes": ""}  # fmt: skip


def _webui_known(card: Card) -> dict[str, Any]:
    """What is known of the LoRA in the WebUI's words."""
    known: dict[str, Any] = {}
    if card.family in _WEBUI_VERSIONS:
        known["sd version"] = _WEBUI_VERSIONS[card.family]
    if card.words:
        known["activation text"] = card.words
    if card.weight:
        known["preferred weight"] = card.weight
    return known


def _merge(path: Path, blank: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Write the notes that are there, over the blank ones and under the new ones."""
    write_json(path, {**blank, **_old(path), **new}, indent=4)


def _old(path: Path) -> Mapping[str, Any]:
    """The notes that are there. Raises BadInput for a file that is no such notes: it is not ours to replace."""
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise BadInput(
            say("{path} holds something else than notes on a model.", path=str(path)),
            say("Move it away or choose another name."),
        )
    return data


def _sha256(path: Path) -> str:
    """Of a whole file, in capitals as CivitAI writes it."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest().upper()
