"""Writes a model in another container, precision or layout, without its averaged weights, or with another VAE."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainer.errors import BadInput
from trainer.messages import Message, say
from trainer.models import keys
from trainer.models.header import ModelFacts, inspect_file
from trainer.models.weights_file import read_header
from trainer.tools.catalog import ConvertSettings
from trainer.tools.checkpoint import Checkpoint, open_checkpoint, part_of
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
    to_folder = output.suffix.lower() not in MODEL_SUFFIXES
    check_output(output, inputs, () if to_folder else MODEL_SUFFIXES, settings.overwrite)
    model = _open(settings.model, settings)
    model, note = _with_ema(model, settings.ema)
    if settings.vae:
        model = replace_vae(model, settings.vae)
    notes = [note] if note is not None else []
    if to_folder:
        from trainer.tools.folder_out import write_folder

        vae = Path(settings.vae) if settings.vae else None
        count = write_folder(output, model, vae, settings.precision, watch)
    else:
        count = _write_file(output, model, settings, watch)
    summary = say("{count} tensors written to {path}.", count=count, path=str(output))
    return Result(summary, (output,), tuple(notes), {"tensors": count})


def _open(path: str, settings: ConvertSettings) -> Checkpoint:
    """The model; any other file of weights too, as long as only its container or precision is to change."""
    facts = inspect_file(Path(path))
    if facts.kind == "base":
        return open_checkpoint(path, "Model")
    if facts.kind in _NO_WEIGHTS or facts.path.is_dir():
        raise BadInput(say("{path} cannot be converted. {reason}", path=path, reason=facts.problem or facts.summary))
    if settings.vae or Path(settings.output).suffix.lower() not in MODEL_SUFFIXES:
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
    return replace(model, places=places), say("{count} averaged weights (EMA) were left out.", count=len(averaged))


def _write_file(output: Path, model: Checkpoint, settings: ConvertSettings, watch: Watch) -> int:
    with Files() as files:
        is_base = model.facts.kind == "base"
        rows = [copied(name, place, settings.precision, files, is_base) for name, place in model.places.items()]
        write_model(output, rows, {"format": "pt", **model.metadata}, watch, model)
    return len(rows)
