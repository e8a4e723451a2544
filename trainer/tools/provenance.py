"""What a tool's output says about itself: what still holds of its inputs' metadata, and how it was made. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.models import foreign_json

RECIPE = "athanor_recipe"
_MODEL_FACTS = (  # true of a changed model as of the one before
    "modelspec.sai_model_spec",
    "modelspec.architecture",
    "modelspec.implementation",
    "modelspec.resolution",
    "modelspec.prediction_type",
    "modelspec.timestep_range",
    "modelspec.encoder_layer",
    "modelspec.license",
    "modelspec.usage_hint",
)
_ONE_FILE = (  # about the file that was read, and no other
    "sshs_model_hash",
    "sshs_legacy_hash",
    "modelspec.hash_sha256",
    "modelspec.thumbnail",
    "ss_sd_scripts_commit_hash",
)
_SHARED_PREFIXES = ("ss_base_model_version", "ss_v2", "ss_sd_model", "ss_new_sd_model", "ss_clip_skip", "modelspec.")


def of_model(
    first: Mapping[str, str], architecture: str, output: Path, tool: str, inputs: Mapping[str, Path], **settings: Any
) -> dict[str, str]:
    """The metadata of a model made of others.

    Args:
        first: the metadata of the model that it is most like.
        architecture: modelspec's word for its family, used where `first` does not say; "" if unknown.
        output: its file, whose stem becomes its title.
        tool, settings: for the recipe.
        inputs: label → file, in order; only their names are written, never their folders.
    """
    kept = {name: first[name] for name in _MODEL_FACTS if name in first}
    kept.setdefault("modelspec.sai_model_spec", "1.0.1")
    if architecture:
        kept.setdefault("modelspec.architecture", architecture)
    return {**kept, "format": "pt", **_origin(output, tool, inputs, settings)}


def of_lora(
    metadata: Sequence[Mapping[str, str]],
    output: Path,
    tool: str,
    inputs: Mapping[str, Path],
    dims: Mapping[str, str],
    **settings: Any,
) -> dict[str, str]:
    """The metadata of a LoRA made of others.

    Of one LoRA everything is kept that is not about that one file; of several what all of them say alike, and their tags
    together. `dims` are the network's entries (`ss_network_dim` …).
    """
    if len(metadata) == 1:
        kept = {name: text for name, text in metadata[0].items() if name not in _ONE_FILE}
    else:
        kept = _alike(metadata)
        if tags := _tags(metadata):
            kept["ss_tag_frequency"] = json.dumps(tags, ensure_ascii=False)
    named = {"ss_output_name": output.stem}
    return {**kept, **named, **dims, **_origin(output, tool, inputs, settings)}


def weights(entries: Sequence[Any]) -> list[dict[str, float]]:
    """The weights of a list of LoRAs as the recipe has them."""
    return [entry.model_dump(exclude={"path"}, exclude_none=True) for entry in entries]


def _alike(metadata: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first, *others = metadata
    return {
        name: text
        for name, text in first.items()
        if name.startswith(_SHARED_PREFIXES)
        and name not in _ONE_FILE
        and all(other.get(name) == text for other in others)
    }


def _tags(metadata: Iterable[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """The tag counts of all, folders of the same name added up; what is no such table is left out."""
    sums: dict[str, dict[str, int]] = {}
    for entries in metadata:
        for folder, counts in _table(entries.get("ss_tag_frequency", "")).items():
            sum_ = sums.setdefault(folder, {})
            for tag, count in counts.items() if isinstance(counts, dict) else ():
                if isinstance(count, int):
                    sum_[tag] = sum_.get(tag, 0) + count
    return sums


def _table(text: str) -> dict[str, Any]:
    try:
        data = foreign_json.parse(text or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _origin(output: Path, tool: str, inputs: Mapping[str, Path], settings: Mapping[str, Any]) -> dict[str, str]:
    date = datetime.now(UTC).replace(microsecond=0, tzinfo=None).isoformat()
    names = {label: path.name for label, path in inputs.items()}
    recipe = {
        "tool": tool,
        "inputs": names,
        **{key: value for key, value in settings.items() if value not in (None, "")},
    }
    origin = {"modelspec.title": output.stem, "modelspec.date": date, RECIPE: json.dumps(recipe, ensure_ascii=False)}
    if len(names) > 1:
        origin["modelspec.merged_from"] = ", ".join(Path(name).stem for name in names.values())
    return origin
