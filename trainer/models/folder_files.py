"""The files of one part of a diffusers folder: which of what lies there are its weights, or its tokenizer. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from trainer.models import foreign_json
from trainer.models.opening import NotWeights, read_small

MAX_CONFIG_BYTES = 4 * 1024 * 1024  # an index of shards is the longest: about 0.3 MB
MAX_SHARDS = 1000
TOKENIZER_FILES = (
    "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip

_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ending>\.[a-z]+)$")


class BadConfig(ValueError):
    """A config of a folder that cannot be read."""


def weight_files(folder: Path) -> list[Path]:
    """The weight files of one part of a diffusers folder, in the order in which programs look for them.

    safetensors before .bin, the full version before variants (.fp16.), one file before shards; non_ema never. Of shards
    all that belong together, also those that are not there. Raises OSError, NotWeights and BadConfig for a broken index.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".json"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    for ending in (".safetensors", ".bin"):
        for variant in ("", *_variants(names, ending)):
            found = _variant_files(folder, names, variant, ending)
            if found:
                return found
    return []


def is_tokenizer(names: Collection[str]) -> bool:
    """Whether a folder with files of these names has CLIP's words and merges, in one form or the other."""
    return {"vocab.json", "merges.txt"} <= set(names) or "tokenizer.json" in names


def _variants(names: list[str], ending: str) -> list[str]:
    """The variants that lie there: ".fp16" first."""
    found = set()
    for name in names:
        match = re.match(rf"(?:{'|'.join(_STEMS)})(\.\w+)(?:-\d{{5}}-of-\d{{5}})?\{ending}$", name)
        if match and match[1] != ".non_ema":
            found.add(match[1])
    return sorted(found, key=lambda variant: (variant != ".fp16", variant))


def _variant_files(folder: Path, names: list[str], variant: str, ending: str) -> list[Path]:
    for stem in _STEMS:
        if f"{stem}{variant}{ending}" in names:
            return [folder / f"{stem}{variant}{ending}"]
        index = f"{stem}{ending}.index{variant}.json"
        if index in names:
            return [folder / name for name in _indexed(folder / index)]
        shards = [match for name in names if (match := _SHARD.match(name))]
        mine = [match for match in shards if match["stem"] == f"{stem}{variant}" and match["ending"] == ending]
        if mine:
            count = min(int(mine[0]["count"]), MAX_SHARDS)
            return [
                folder / f"{stem}{variant}-{number:05}-of-{mine[0]['count']}{ending}" for number in range(1, count + 1)
            ]
    return []


def _indexed(path: Path) -> list[str]:
    """The shards that an index names. Raises BadConfig for names that lead out of the folder."""
    table = read_json(path).get("weight_map")
    names = list(dict.fromkeys(table.values())) if isinstance(table, dict) and _all_text(table.values()) else []
    if not 0 < len(names) <= MAX_SHARDS or any(
        re.fullmatch(r"[\w.\-]+", name) is None or name[0] == "." for name in names
    ):
        raise BadConfig(f"{path.name}: weight_map")
    return names


def _all_text(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def read_json(path: Path) -> dict[str, Any]:
    """A table from a small JSON file. Raises OSError, NotWeights and BadConfig."""
    try:
        data = foreign_json.parse(read_small(path, MAX_CONFIG_BYTES))
    except NotWeights:
        raise
    except ValueError as error:
        raise BadConfig(f"{path.name}: {error}") from error
    if not isinstance(data, dict):
        raise BadConfig(f"{path.name} is not a table")
    return data
