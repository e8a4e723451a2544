"""`python -m trainer inspect FILE`: all that a model file says of itself, for people or programs. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from trainer.commands.answers import json_value
from trainer.models import foreign_json
from trainer.models.header import FAMILY_TITLES, ModelFacts
from trainer.models.opening import shown
from trainer.models.strangers import METHOD_TITLES
from trainer.words import size_words

PART_TITLES = {
    "unet": "UNet", "vae": "VAE", "text_encoder": "text encoder", "text_encoder_2": "second text encoder",
    "transformer": "transformer",
}  # fmt: skip
SOURCES = {
    "metadata": "its metadata say so", "marker": "a marker in the file says so", "config": "a config says so",
    "family": "as all of its family",
}  # fmt: skip
CONTAINERS = {
    "safetensors": "safetensors", "torch_zip": "torch (zip)", "torch_pickle": "torch (pickles, before 2020)",
    "torch_tar": "torch (tar, before 2017)", "folder": "diffusers folder",
}  # fmt: skip
SPELLINGS = {
    "kohya": "kohya", "sai": "kohya (SDXL's original names)", "diffusers": "diffusers", "peft": "PEFT",
    "onetrainer": "OneTrainer", "lycoris": "LyCORIS",
}  # fmt: skip
_LONGEST = 160  # letters of a value for people
_NUM_TAGS = 20
_TRAINING = (  # what people ask of a LoRA's metadata: title, then the entries that may hold it
    ("title", ("modelspec.title", "ss_output_name")),
    ("author", ("modelspec.author",)),
    ("description", ("modelspec.description", "ss_training_comment")),
    ("trigger", ("modelspec.trigger_phrase",)),
    ("usage", ("modelspec.usage_hint",)),
    ("license", ("modelspec.license",)),
    ("made on", ("ss_sd_model_name",)),
    ("base version", ("ss_base_model_version", "modelspec.architecture")),
    ("network", ("ss_network_module",)),
    ("arguments", ("ss_network_args",)),
    ("pictures", ("ss_num_train_images",)),
    ("class pictures", ("ss_num_reg_images",)),
    ("resolution", ("ss_resolution", "modelspec.resolution")),
    ("epochs", ("ss_epoch", "ss_num_epochs")),
    ("steps", ("ss_steps", "ss_max_train_steps")),
    ("batch size", ("ss_total_batch_size", "ss_batch_size_per_device")),
    ("learning rate", ("ss_unet_lr", "ss_learning_rate")),
    ("text encoder rate", ("ss_text_encoder_lr",)),
    ("optimiser", ("ss_optimizer",)),
    ("schedule", ("ss_lr_scheduler",)),
    ("clip skip", ("ss_clip_skip",)),
    ("noise offset", ("ss_noise_offset",)),
    ("min-SNR gamma", ("ss_min_snr_gamma",)),
    ("seed", ("ss_seed",)),
    ("merged from", ("modelspec.merged_from",)),
)


def as_json(facts: ModelFacts) -> dict[str, Any]:
    """All facts, with metadata and tree, as JSON says them; sentences as text."""
    whole: dict[str, Any] = json_value(facts)
    return whole | {"metadata": dict(facts.metadata), "dtypes": dict(facts.dtypes)}


def as_text(facts: ModelFacts) -> str:
    """The same for people: sentences first, then the facts, then what it says of its training."""
    lines = [_clean(str(facts.summary))]
    if facts.problem is not None and str(facts.problem) != str(facts.summary):
        lines.append(_clean(str(facts.problem)))
    if facts.use is not None:
        lines.append(_clean(str(facts.use)))
    for heading, rows in (("", _facts(facts)), ("What it says of itself", _said(facts))):
        known = [(title, value) for title, value in rows if value]
        if known:
            lines += ["", *([heading] if heading else [])]
            lines += [f"  {title:<18} {_clean(value)}" for title, value in known]
    return "\n".join(lines)


def _facts(facts: ModelFacts) -> Iterator[tuple[str, str]]:
    yield "family", FAMILY_TITLES.get(facts.family or "", "")
    if facts.prediction is not None:
        yield "predicts", f"{facts.prediction}{_because(facts)}"
    elif facts.kind == "base" and facts.problem is None:
        yield "predicts", "epsilon or v_prediction: nothing in the file says it"
    yield "zero terminal SNR", {True: "yes", False: "no", None: ""}[facts.zero_snr]
    yield "holds" if facts.kind != "lora" else "changes", ", ".join(_titles(facts.parts))
    yield "lacks", ", ".join(_titles(facts.missing))
    yield "averaged weights", "yes (EMA)" if facts.averaged else ""
    if facts.adapter is not None:
        yield from _adapter(facts)
    yield "vectors", str(facts.vectors or "")
    yield "input channels", str(facts.in_channels or "")
    yield "latent channels", str(facts.latent_channels or "")
    yield "native size", f"{facts.native_resolution} pixels" if facts.native_resolution else ""
    yield "numbers", ", ".join(f"{name} ({size_words(count)})" for name, count in facts.dtypes)
    yield "tensors", str(facts.num_tensors or "")
    yield "format", CONTAINERS.get(facts.container or "", "")
    yield "size", size_words(facts.num_bytes) if facts.num_bytes else ""


def _because(facts: ModelFacts) -> str:
    return f" ({SOURCES[facts.prediction_source]})" if facts.prediction_source else ""


def _titles(parts: frozenset[str]) -> list[str]:
    return [title for part, title in PART_TITLES.items() if part in parts]


def _adapter(facts: ModelFacts) -> Iterator[tuple[str, str]]:
    adapter = facts.adapter
    assert adapter is not None
    yield "method", METHOD_TITLES[adapter.method]
    yield "names", SPELLINGS.get(adapter.spelling or "", "")
    yield "rank", ", ".join(str(rank) for rank in adapter.ranks)
    yield "alpha", f"{adapter.alpha:g}" if adapter.alpha is not None else ""
    yield "layers", str(adapter.num_layers or "")


def _said(facts: ModelFacts) -> Iterator[tuple[str, str]]:
    metadata = dict(facts.metadata)
    for title, names in _TRAINING:
        values = (metadata.get(name, "") for name in names)
        yield title, next((value for value in values if value not in ("", "None")), "")
    yield "trained", _time(metadata.get("ss_training_started_at", ""))
    yield "frequent tags", ", ".join(_tags(metadata.get("ss_tag_frequency", "")))
    for name, value in facts.tree.items():
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            yield shown(name[:18]), str(value)
    if facts.metadata:
        yield "entries", f"{len(facts.metadata)}; --json shows them all"


def _time(text: str) -> str:
    try:
        return f"{datetime.fromtimestamp(float(text), UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return ""


def _tags(text: str) -> list[str]:
    """The most frequent tags of `ss_tag_frequency`, a table of tables by folder."""
    counts: Counter[str] = Counter()
    try:
        for folder in foreign_json.parse(text).values():
            counts.update({tag.strip(): int(count) for tag, count in folder.items()})
        return [f"{tag} ({count})" for tag, count in counts.most_common(_NUM_TAGS)]
    except (ValueError, TypeError, AttributeError, OverflowError):  # a number can be too long to be said
        return []


def _clean(text: str) -> str:
    """A line fit for a terminal: what a stranger's file says may hold control sequences, and novels."""
    return shown(" ".join(text[: _LONGEST * 16].split()), _LONGEST * 4)
