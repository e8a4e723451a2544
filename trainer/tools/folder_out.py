"""Writes a model as a diffusers folder, tensor by tensor: the parts are made without memory and only say what they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import BadInput
from trainer.messages import say
from trainer.models import folder_out, keys
from trainer.models.header import TRAINABLE
from trainer.models.library_names import unet_links, vae_links
from trainer.models.protocol import Components, Part
from trainer.tools.checkpoint import Checkpoint, family_of
from trainer.tools.model_out import file_dtype, in_dtype
from trainer.tools.output import WRITING, check_space
from trainer.tools.places import Files, Place
from trainer.tools.translate import to_library
from trainer.tools.watch import Meter, Watch

if TYPE_CHECKING:
    import torch

    from trainer.models.loading import PartPlan
    from trainer.models.saving import Row
    from trainer.models.stable_diffusion import StableDiffusion


def write_folder(folder: Path, model: Checkpoint, vae: Path | None, precision: str, watch: Watch) -> int:
    """Write the model into a new folder and return how many tensors it has.

    Args:
        folder: to be made or replaced, whole or not at all.
        model: its places hold what is written.
        vae: where the VAE's sizes are told, if not by the model.
        precision: as `model_out.file_dtype` has it.

    Raises BadInput if the model is of another family, or tensors are missing; OSError, RunFailed, Stopped.
    """
    if model.facts.family not in TRAINABLE:
        raise BadInput(say("A diffusers folder cannot be made of this. {summary}", summary=model.facts.summary))
    family = family_of(model.facts.family)
    parts: Any = [part for part in family.parts if part in model.facts.parts or (part == "vae" and vae is not None)]
    plans = family.plans(model.path, vae=vae, parts=parts)
    given: dict[Part, dict[str, Place]] = {part: _library_places(family, plan, model) for part, plan in plans.items()}
    places = [place for found in given.values() for place in found.values()]
    meter = watch.meter(WRITING, sum(place.num_bytes(file_dtype("", place, precision, False)) for place in places))
    check_space(folder.parent, meter.total)
    with Files() as files:
        give = _giver(model.path, given, precision, files, meter)
        folder_out.save_folder(family, _empty(family, plans, model), folder, give=give)
    return len(places)


def _library_places(family: StableDiffusion, plan: PartPlan, model: Checkpoint) -> dict[str, Place]:
    """The tensors of a part by their names in its own file."""
    if plan.part == "unet":
        return to_library(unet_links(plan.config), keys.LDM_UNET, model.places)
    if plan.part == "vae":
        return to_library(vae_links(plan.config), keys.LDM_VAE, model.places)
    encoder = next(encoder for encoder in family.text_encoders if encoder.part == plan.part)
    prefix = next((prefix for prefix in encoder.prefixes if any(name.startswith(prefix) for name in model.places)), "")
    return to_library(encoder.links(plan.config), prefix, model.places)


def _empty(family: StableDiffusion, plans: Mapping[Part, PartPlan], model: Checkpoint) -> Components:
    """The parts without memory, and what else a folder tells."""
    import torch

    made: dict[str, Any] = {}
    for part, plan in plans.items():
        make = family.maker(plan)
        with torch.device("meta"):
            made[part] = make()
    return Components(
        **made,
        tokenizer=family.load_tokenizer(model.path),
        facts=model.facts,
        prediction=model.facts.prediction or family.rules.prediction,
        zero_snr=bool(model.facts.zero_snr),
    )


def _giver(
    path: Path, given: Mapping[Part, Mapping[str, Place]], precision: str, files: Files, meter: Meter
) -> Callable[[Part, str, torch.Tensor], Row]:
    """What makes the row of each tensor that a part wants."""

    def give(part: Part, name: str, wanted: torch.Tensor) -> Row:
        place = given[part].get(name)
        if place is None or place.shape != tuple(wanted.shape):
            raise BadInput(
                say(
                    "In {path}, the tensor {name} of the {part} is missing or of another size.",
                    path=str(path),
                    name=name,
                    part=part.replace("_", " "),
                ),
                say("Download the model again; if its sizes are unusual, it needs its config beside it."),
            )
        dtype = file_dtype("", place, precision, False)

        def read() -> torch.Tensor:
            tensor = in_dtype(files.read(place), dtype, name)
            meter.advance(place.num_bytes(dtype))
            return tensor

        return name, place.shape, dtype, read

    return give
