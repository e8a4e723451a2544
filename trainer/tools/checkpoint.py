"""A base model as tools see it: every tensor by its LDM name, whatever the file or folder it lies in. No torch at import."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import BadInput
from trainer.messages import Message, say
from trainer.models import keys, layouts
from trainer.models.configs import config_beside
from trainer.models.header import FAMILY_TITLES, INPAINTING_CHANNELS, TRAINABLE, ModelFacts, inspect_file
from trainer.models.library_names import unet_links, vae_links
from trainer.models.saving import untold
from trainer.models.text_encoders import LOGIT_SCALE, TextEncoder
from trainer.models.weights_file import read_header
from trainer.tools.places import Piece, Place
from trainer.tools.translate import to_ldm

if TYPE_CHECKING:
    import torch

    from trainer.models.loading import PartPlan
    from trainer.models.loading import Place as FoundPlace
    from trainer.models.stable_diffusion import StableDiffusion

_TEXT_PREFIXES = (
    ("text_encoder_2", "conditioner.embedders.1."),
    ("text_encoder", "conditioner.embedders.0."),
    ("text_encoder", "cond_stage_model."),
)


@dataclass(frozen=True)
class Checkpoint:
    """A model.

    Attributes:
        path: its file or folder.
        facts: what `inspect_file` says.
        places: LDM name → where the tensor lies; marker keys and averaged weights among them.
        metadata: the header's strings, none for a folder.
    """

    path: Path
    facts: ModelFacts
    places: Mapping[str, Place]
    metadata: Mapping[str, str]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: place.shape for name, place in self.places.items()}


def part_of(name: str) -> str | None:
    """The part that a tensor belongs to by its LDM name ("unet", "vae", "text_encoder", …, "ema"), None if to none."""
    if name.startswith(keys.LDM_UNET):
        return "unet"
    if name.startswith(keys.LDM_VAE):
        return "vae"
    if name.startswith(keys.LDM_EMA):
        return "ema"
    return next((part for part, prefix in _TEXT_PREFIXES if name.startswith(prefix)), None)


def left_out_averages(model: Checkpoint) -> Iterator[Message]:
    """What to tell of a model whose averaged weights are not written."""
    if count := sum(part_of(name) == "ema" for name in model.places):
        yield say("{count} averaged weights (EMA) were left out.", count=count)


def open_checkpoint(path: str, what: str) -> Checkpoint:
    """Read the header (or headers) of a base model.

    Args:
        path: a file or a diffusers folder.
        what: the setting's label, for sentences: "Model A".

    Raises BadInput if it is something else or damaged.
    """
    facts = inspect_file(Path(path))
    if facts.kind != "base" or (facts.problem is not None and facts.family is None):
        reason = facts.problem or facts.summary
        raise BadInput(
            say("{what}: a base model is needed, {path} is none. {reason}", what=what, path=path, reason=reason),
            _way_out(facts),
        )
    return _folder(facts) if facts.path.is_dir() else _file(facts)


def _way_out(facts: ModelFacts) -> Any:
    if facts.kind == "lora":
        return say("The tool bake puts LoRAs into a model, join puts LoRAs together.")
    return None


def architecture_of(facts: ModelFacts) -> str:
    """modelspec's word for the model, "" if it has none here or depends on a prediction that nobody knows."""
    inpaints = facts.family in TRAINABLE and facts.in_channels == INPAINTING_CHANNELS
    return (inpaints and family_of(facts.family).inpainting_architecture) or family_architecture(facts)


def family_architecture(facts: ModelFacts) -> str:
    """The same of the family's plain model, which LoRAs are told to be for."""
    known = facts.prediction or len(set(_facts_of_family(facts, "architectures").values())) == 1
    return _fact_of_family(facts, "architectures") if known else ""


def base_version_of(facts: ModelFacts) -> str:
    """sd-scripts' word for the model's family, "" if it has none here."""
    return _fact_of_family(facts, "base_versions")


def _facts_of_family(facts: ModelFacts, name: str) -> Mapping[str, str]:
    """A family's words by prediction, none for a family that is not trained here."""
    found: Mapping[str, str] = getattr(family_of(facts.family), name) if facts.family in TRAINABLE else {}
    return found


def _fact_of_family(facts: ModelFacts, name: str) -> str:
    found = _facts_of_family(facts, name)
    return found[facts.prediction or family_of(facts.family).rules.prediction] if found else ""


def family_of(name: str | None) -> StableDiffusion:
    """A family of those that train (`header.TRAINABLE`)."""
    family: StableDiffusion = importlib.import_module(f"trainer.models.{name}").FAMILY
    return family


def _file(facts: ModelFacts) -> Checkpoint:
    header = read_header(facts.path)
    names = layouts.unet_names(header.tensors)
    places = {names.get(name, ldm_name(name)): Place.of(facts.path, info) for name, info in header.tensors.items()}
    return Checkpoint(facts.path, facts, places, header.metadata)


def ldm_name(name: str) -> str:
    """The usual name of a tensor of an LDM file: some early models lack the text encoder's `text_model` level."""
    rest = name.removeprefix(keys.LDM_CLIP_SHORT)
    if rest != name and rest.startswith(("embeddings.", "encoder.", "final_layer_norm.")):
        return keys.LDM_CLIP + rest
    return name


def same_family(models: Mapping[str, Checkpoint]) -> None:
    """Raise BadInput unless all models (by label) are of one family and, as far as is known, of one prediction."""
    families = {label: model.facts.family or "" for label, model in models.items()}
    if len(set(families.values())) > 1:
        listed = "; ".join(f"{label}: {FAMILY_TITLES.get(name, name or '?')}" for label, name in families.items())
        raise BadInput(say("The models are of different families ({listed}).", listed=listed))
    known = {label: model.facts.prediction for label, model in models.items() if model.facts.prediction}
    if len(set(known.values())) > 1:
        listed = "; ".join(f"{label}: {prediction}" for label, prediction in known.items())
        raise BadInput(
            say("The models predict different things ({listed}); a mixture of them draws noise.", listed=listed)
        )


def same_shapes(models: Mapping[str, Checkpoint]) -> None:
    """Raise BadInput if weights that models share have different sizes; only the UNet's input may be wider (inpainting)."""
    (first_label, first), *others = models.items()
    for label, other in others:
        wrong = [
            name
            for name, place in other.places.items()
            if name in first.places
            and part_of(name) not in (None, "ema")
            and not fits(first.places[name].shape, place.shape)
        ]
        if wrong:
            is_narrower = len(wrong) == 1 and fits(other.places[wrong[0]].shape, first.places[wrong[0]].shape)
            raise BadInput(
                say(
                    "{count} tensors of {label} have other sizes than in {first}, for example {name}.",
                    count=len(wrong),
                    label=label,
                    first=first_label,
                    name=wrong[0],
                ),
                say("An inpainting model can be merged with others only as {first}.", first=first_label)
                if is_narrower
                else None,
            )


def check_numbers(model: Checkpoint, name: str) -> None:
    """Raise BadInput if a weight holds integers, as files for running a model only do (quantised ones)."""
    place = model.places[name]
    if not place.is_float:
        raise BadInput(
            say(
                "The weight {name} of {path} holds numbers of the kind {dtype}, with which nothing can be computed.",
                name=name,
                path=str(model.path),
                dtype=place.dtype,
            ),
            say("Choose a version of the model in fp32, fp16 or bf16."),
        )


def fits(target: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether a tensor can be added to another: the same shape, or a convolution with fewer inputs (a UNet's first)."""
    if target == other:
        return True
    return len(target) == len(other) == 4 and target[0] == other[0] and target[2:] == other[2:] and target[1] > other[1]


def _folder(facts: ModelFacts) -> Checkpoint:
    """A diffusers folder: each tensor by the name that it has in an LDM file, those that only LDM files have included."""
    if facts.family not in TRAINABLE:
        raise BadInput(say("{path} cannot be read as a folder. {summary}", path=str(facts.path), summary=facts.summary))
    family = family_of(facts.family)
    places: dict[str, Place] = {}
    parts: Any = facts.parts
    for plan in family.plans(facts.path, parts=parts).values():
        places |= part_places(family, plan)
    return Checkpoint(facts.path, facts, places, {})


def part_places(family: StableDiffusion, plan: PartPlan) -> dict[str, Place]:
    """The tensors of one part by LDM name."""
    given = {
        name: Place((Piece(found.path, found.info, found.turned),), _seen(found), found.info.dtype)
        for name, found in plan.tensors.items()
    }
    if plan.part == "unet":
        return to_ldm(unet_links(plan.config), keys.LDM_UNET, given)
    if plan.part == "vae":
        return to_ldm(vae_links(plan.config), keys.LDM_VAE, given)
    encoder = next(encoder for encoder in family.text_encoders if encoder.part == plan.part)
    prefix = encoder.prefixes[0]
    named = {encoder.file_name(name): place for name, place in given.items()}
    found = to_ldm(encoder.links(plan.config), prefix, named)
    return found | _only_in_ldm(encoder, plan.config, found)


def untold_configs(model: Checkpoint) -> dict[str, dict[str, Any]]:
    """What of the parts' configs a reader could not tell from a file with the model's tensors, by part."""
    if not model.facts.path.is_dir():
        return config_beside(model.path)
    family = family_of(model.facts.family)
    parts: Any = model.facts.parts
    true = {part: plan.config for part, plan in family.plans(model.path, parts=parts).items()}
    return untold(family, model.shapes, true)


def _seen(place: FoundPlace) -> tuple[int, ...]:
    return place.info.shape[::-1] if place.turned else place.info.shape


def _only_in_ldm(encoder: TextEncoder, config: Mapping[str, Any], found: Mapping[str, Place]) -> dict[str, Place]:
    """What LDM files have besides: position numbers; of OpenCLIP a last layer that nobody runs, a projection, a scale."""
    prefix, width, layers = encoder.prefixes[0], config["hidden_size"], config["num_hidden_layers"]
    if encoder.names == "clip":
        count = config["max_position_embeddings"]
        return {f"{prefix}embeddings.position_ids": Place.made((1, count), "I64", lambda: _numbers(count))}
    dtype = next(iter(found.values())).dtype
    more: dict[str, Place] = {}
    last = f"{prefix}transformer.resblocks.{layers - 1}."
    for number in range(encoder.unused_layers):
        unused = f"{prefix}transformer.resblocks.{layers + number}."
        more |= {unused + name[len(last) :]: place for name, place in found.items() if name.startswith(last)}
    if f"{prefix}text_projection" not in found:
        more[f"{prefix}text_projection"] = Place.made((width, width), dtype, lambda: _identity(width))
    more[f"{prefix}logit_scale"] = Place.made((), dtype, _scale)
    return more


def _numbers(count: int) -> torch.Tensor:
    import torch

    return torch.arange(count)[None]


def _identity(width: int) -> torch.Tensor:
    import torch

    return torch.eye(width)


def _scale() -> torch.Tensor:
    import torch

    return torch.tensor(LOGIT_SCALE)
