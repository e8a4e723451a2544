"""Which files of a model's repository a training needs, told from their names alone: the rest is not downloaded."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.messages import Message, say
from trainer.models.folder_files import TOKENIZER_FILES, is_tokenizer

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
_TOKENIZERS = ("tokenizer", "tokenizer_2")
_SCHEDULER = "scheduler/scheduler_config.json"
_ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin")
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model|pytorch_model)(?:\.(?P<variant>[A-Za-z0-9_]+))?"
    r"(?:-\d+-of-(?P<shards>\d+))?\.(?P<kind>safetensors|bin)"
)
_SHOWN = 12  # choices that a sentence lists


class Unusable(ValueError):
    """Nothing in a repository can be used: `why`, and what to do."""

    def __init__(self, why: Message, todo: Message | None = None) -> None:
        super().__init__(str(why))
        self.why, self.todo = why, todo


@dataclass(frozen=True)
class Needed:
    """What to have of a repository: `files`, and the `model` among them ("" where the folder as a whole is it)."""

    files: tuple[str, ...]
    model: str = ""


def is_model_file(name: str) -> bool:
    """Whether a name is one that models have."""
    return name.lower().endswith(_ENDINGS)


def needed_files(names: Collection[str], file: str = "", full: bool = False) -> Needed:
    """The files that a training needs.

    A diffusers model: the configs and one set of weights of each part (safetensors before .bin; in half precision
    where there is such a set, unless `full`), its tokenizers, without safety checkers, EMA copies and the single files
    beside them. Else the one model at the top. With each goes the config beside it.

    Args:
        names: all files of the repository, with `/`.
        file: the one file that is wanted, "" for the model as a whole.

    Raises:
        Unusable: it is not there, there are several, or none that can be used.
    """
    if file:
        if file not in names:
            raise Unusable(say("There is no file {file}.", file=file), _choices(names))
        return Needed((*_beside(file, names), file), file)
    if "model_index.json" in names:
        return Needed(_diffusers(names, full))
    part = _part("", names, full)
    if part and "config.json" in names:  # a VAE by itself
        return Needed(part)
    return _single(names)


def _diffusers(names: Collection[str], full: bool) -> tuple[str, ...]:
    if not any(name.startswith("unet/") for name in names):
        raise Unusable(say("It is no Stable Diffusion model: it has no UNet."))
    files = ["model_index.json"]
    for part in PARTS:
        if any(name.startswith(f"{part}/") for name in names):
            found = _part(f"{part}/", names, full)
            if not found:
                raise Unusable(say("{folder}/ has no weights that can be used (.safetensors or .bin).", folder=part))
            files += found
    for folder in _TOKENIZERS:
        inside = _tokenizer(folder, names)
        files += [f"{folder}/{name}" for name in inside if is_tokenizer(inside)]
    return (*files, *([_SCHEDULER] if _SCHEDULER in names else []))


def _tokenizer(folder: str, names: Collection[str]) -> list[str]:
    return [name for name in TOKENIZER_FILES if f"{folder}/{name}" in names]


def _part(folder: str, names: Collection[str], full: bool) -> tuple[str, ...]:
    """One part's config and the best set of its weights; empty if it has none."""
    sets: dict[tuple[str, str], list[str]] = {}
    for name in sorted(names):
        match = _WEIGHTS.fullmatch(name.removeprefix(folder)) if name.startswith(folder) else None
        if match is not None:
            sets.setdefault((match["kind"], match["variant"] or ""), []).append(name)
    variants = ("", "fp16") if full else ("fp16", "")
    for key in ((kind, variant) for kind in ("safetensors", "bin") for variant in variants):
        chosen = _one_set(sets.get(key, []))
        if chosen:
            index = [name for name in sorted(names) if _is_index(name.removeprefix(folder), *key) and "-of-" in chosen[0]]
            return (*([f"{folder}config.json"] if f"{folder}config.json" in names else []), *index, *chosen)
    return ()


def _one_set(found: list[str]) -> list[str]:
    """One file, or all shards of one; nothing where a shard is missing."""
    whole = [name for name in found if "-of-" not in name]
    if whole:
        return whole[:1]
    counts = {int(match["shards"]) for name in found if (match := _WEIGHTS.search(name))}
    return found if counts == {len(found)} else []


def _is_index(name: str, kind: str, variant: str) -> bool:
    middle = f".{variant}" if variant else ""
    return re.fullmatch(rf"\w+\.{kind}\.index{re.escape(middle)}\.json", name) is not None


def _single(names: Collection[str]) -> Needed:
    """The one model at the top of a repository."""
    top = sorted(name for name in names if "/" not in name)
    for endings in ((".safetensors", ".sft"), (".ckpt", ".pt", ".pth", ".bin")):
        models = [name for name in top if name.lower().endswith(endings)]
        if len(models) == 1:
            return Needed((*_beside(models[0], names), models[0]), models[0])
        if models:
            raise Unusable(say("There are several models in it."), _choices(names))
    raise Unusable(say("There is no model in it that can be used (.safetensors, .ckpt or a diffusers folder)."))


def _beside(file: str, names: Collection[str]) -> list[str]:
    """The configs that belong to a single file."""
    stem = file.rpartition(".")[0]
    folder = file.rpartition("/")[0]
    adapter = f"{folder}/adapter_config.json".lstrip("/")
    wanted = [f"{stem}.yaml", f"{stem}.json", *([adapter] if "adapter_model" in file else [])]
    return [name for name in wanted if name in names]


def _choices(names: Collection[str]) -> Message | None:
    models = sorted((name for name in names if is_model_file(name)), key=lambda name: (name.count("/"), name))
    if not models:
        return None
    listed = ", ".join(models[:_SHOWN]) + (", …" if len(models) > _SHOWN else "")
    return say("Write the file you want behind the id, after a slash: {files}.", files=listed)


def is_whole(names: Collection[str], index: Mapping[str, Any] | None) -> bool:
    """Whether a version on the disk has every part that its `model_index.json` lists (None: it has no such file).

    A tokenizer may be missing, since CLIP's own then stands in; one that came only in part does not pass for that.
    """
    if index is None:
        return True
    if not isinstance(index, Mapping):
        return False
    listed = [part for part in PARTS if isinstance(index.get(part), list) and index[part][:1] not in ([], [None])]
    tokenizers = [inside for folder in _TOKENIZERS if (inside := _tokenizer(folder, names))]
    if not all(is_tokenizer(inside) for inside in tokenizers):
        return False
    return all(f"{part}/config.json" in names and _part(f"{part}/", names, full=False) for part in listed)
