"""Writes a model in another container, precision or layout, without its averaged weights, or with another VAE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from trainer.errors import BadInput
from trainer.messages import Message, say
from trainer.models import keys
from trainer.models.header import TRAINABLE, ModelFacts, inspect_file
from trainer.models.weights_file import WEIGHT_SUFFIXES, read_header
from trainer.tools.catalog import ConvertSettings
from trainer.tools.checkpoint import Checkpoint, family_of, left_out_averages, open_checkpoint, part_of
from trainer.tools.model_out import MODEL_SUFFIXES, copied, write_model
from trainer.tools.output import check_output
from trainer.tools.places import Files, Place
from trainer.tools.vae import replace_vae
from trainer.tools.watch import Result, Watch

_NO_WEIGHTS = ("missing", "broken", "pickle", "unknown")


def run(settings: ConvertSettings, watch: Watch) -> Result:
    """Write the model. Raises BadInput if it is none, or cannot be written so."""
    output = Path(settings.output)
    inputs = [Path(settings.model), Path(settings.vae or settings.model)]
    to_folder = _is_folder_name(output)
    check_output(output, inputs, () if to_folder else MODEL_SUFFIXES, settings.overwrite)
    model = _open(settings.model, settings)
    model, note = _with_ema(model, settings.ema)
    if settings.vae:
        model = replace_vae(model, settings.vae)
    notes = [*([note] if note is not None else []), *_lost(model, output)]
    if to_folder:
        from trainer.tools.folder_out import write_folder

        vae = Path(settings.vae) if settings.vae else None
        count = write_folder(output, model, vae, settings.precision, watch)
    else:
        count = _write_file(output, model, settings, watch)
    summary = say("{count} tensors written to {path}.", count=count, path=str(output))
    return Result(summary, (output,), tuple(notes), {"tensors": count})


def _is_folder_name(output: Path) -> bool:
    """Whether a diffusers folder is meant: a name that ends as no file of weights does, misspelt ones included."""
    suffix = output.suffix.lower()
    return suffix not in WEIGHT_SUFFIXES and not suffix.startswith(".safe")


def _lost(model: Checkpoint, output: Path) -> Iterator[Message]:
    """What the user should know of what the new form cannot say."""
    suffix, said = output.suffix.lower(), [name for name in model.metadata if name != "format"]
    if suffix == ".ckpt" and said:
        yield say("A .ckpt file has no place for metadata: its {count} entries were left out.", count=len(said))
    if not _is_folder_name(output):
        return
    if any(part_of(name) == "ema" for name in model.places):
        yield say("A diffusers folder has no place for averaged weights (EMA): they were left out.")
    if model.facts.prediction is None and model.facts.family in TRAINABLE:
        yield say(
            "Nothing says whether the model predicts noise or v; the folder says {prediction}. If its pictures are noise, "
            "change prediction_type in scheduler/scheduler_config.json.",
            prediction=family_of(model.facts.family).rules.prediction,
        )


def _open(path: str, settings: ConvertSettings) -> Checkpoint:
    """The model; any other file of weights too, as long as only its container or precision is to change."""
    facts = inspect_file(Path(path))
    if facts.kind == "base":
        return open_checkpoint(path, "Model")
    if facts.kind in _NO_WEIGHTS or facts.path.is_dir():
        raise BadInput(say("{path} cannot be converted. {reason}", path=path, reason=facts.problem or facts.summary))
    if settings.vae or _is_folder_name(Path(settings.output)):
        raise BadInput(say("That needs a base model. {summary}", summary=facts.summary))
    return _other(facts)


def _other(facts: ModelFacts) -> Checkpoint:
    """A LoRA, VAE, embedding, … as it is."""
    header = read_header(facts.path)
    places = {name: Place.of(facts.path, info) for name, info in header.tensors.items()}
    return Checkpoint(facts.path, facts, places, header.metadata)


def _with_ema(model: Checkpoint, wish: str) -> tuple[Checkpoint, Message | None]:
    """The model with the averaged weights dropped, taken or kept; and what to tell of it."""
    averaged = {name: place for name, place in model.places.items() if part_of(name) == "ema"}
    if wish == "keep" or not averaged:
        if wish == "take":
            raise BadInput(say("There are no averaged weights (EMA) in {path}.", path=str(model.path)))
        return model, None
    places = {name: place for name, place in model.places.items() if name not in averaged}
    if wish == "take":
        twins = {name: averaged.get(keys.ema_name(name)) for name in places if part_of(name) == "unet"}
        missing = [name for name, place in twins.items() if place is None]
        if missing:
            raise BadInput(
                say(
                    "The averaged weights in {path} lack {count} of the UNet's, for example {name}.",
                    path=str(model.path),
                    count=len(missing),
                    name=missing[0],
                )
            )
        places |= {name: place for name, place in twins.items() if place is not None}
        return replace(model, places=places), say("The UNet's averaged weights were taken.")
    return replace(model, places=places), next(left_out_averages(model))


def _write_file(output: Path, model: Checkpoint, settings: ConvertSettings, watch: Watch) -> int:
    with Files() as files:
        is_base = model.facts.kind == "base"
        rows = [copied(name, place, settings.precision, files, is_base) for name, place in model.places.items()]
        write_model(output, rows, {"format": "pt", **model.metadata}, watch, model)
    return len(rows)
