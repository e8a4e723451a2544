"""A VAE from any file that holds one, by the names of LDM files, to be put into a model. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from trainer.errors import BadInput
from trainer.messages import say
from trainer.models import keys, layouts
from trainer.models.header import inspect_file, vae_problem
from trainer.models.library_names import vae_links
from trainer.models.weights_file import read_header
from trainer.tools.checkpoint import Checkpoint, ldm_name, part_of
from trainer.tools.places import Place
from trainer.tools.translate import to_ldm

_DIFFUSERS_SIGN = "encoder.down_blocks.0.resnets.0.conv1.weight"


def replace_vae(model: Checkpoint, path: str) -> Checkpoint:
    """The model with the VAE of another file in place of its own. Raises BadInput if that has none, or another kind."""
    own = {name: place for name, place in model.places.items() if part_of(name) == "vae"}
    new = vae_places(Path(path))
    problem = vae_problem(inspect_file(Path(path)), model.facts.family)
    if problem is not None:
        raise BadInput(problem)
    missing = [name for name in own if name not in new]
    if missing:
        raise BadInput(
            say(
                "The VAE {path} is not whole: {count} tensors of the model's are not in it, for example {name}.",
                path=path,
                count=len(missing),
                name=missing[0],
            )
        )
    wrong = [name for name, place in own.items() if name in new and new[name].shape != place.shape]
    if wrong:
        raise BadInput(
            say(
                "The VAE {path} has other sizes than the model's: {count} tensors differ, for example {name}.",
                path=path,
                count=len(wrong),
                name=wrong[0],
            )
        )
    others = {name: place for name, place in model.places.items() if name not in own}
    return replace(model, places={**others, **new})


def vae_places(path: Path) -> dict[str, Place]:
    """The VAE's tensors by LDM name. Raises BadInput if there is none in `path`, or none of 4 latent channels."""
    facts = inspect_file(path)
    if "vae" not in facts.parts:
        reason = facts.problem if facts.kind in ("missing", "broken") and facts.problem else facts.summary
        raise BadInput(say("A VAE is needed, {path} has none. {reason}", path=str(path), reason=reason))
    places = _folder(path / "vae" if (path / "vae").is_dir() else path) if path.is_dir() else _file(path)
    latents = places.get(f"{keys.LDM_VAE}decoder.conv_in.weight")
    if latents is None or latents.shape[1] != 4:
        raise BadInput(
            say("The VAE {path} is for another kind of model: its latents have not 4 channels.", path=str(path))
        )
    return places


def _file(path: Path) -> dict[str, Place]:
    header = read_header(path)
    if _DIFFUSERS_SIGN in header.tensors:
        given = {keys.modern_vae_name(name): Place.of(path, info) for name, info in header.tensors.items()}
        return to_ldm_vae(given)
    names = {ldm_name(name): info for name, info in header.tensors.items()}
    if "encoder.conv_in.weight" in names:  # a VAE alone
        names = {f"{keys.LDM_VAE}{name}": info for name, info in names.items() if name.startswith(_PARTS)}
    return {name: Place.of(path, info) for name, info in names.items() if part_of(name) == "vae"}


_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def _folder(folder: Path) -> dict[str, Place]:
    given = {
        keys.modern_vae_name(name): Place.of(path, info)
        for path in layouts.weight_files(folder)
        for name, info in read_header(path).tensors.items()
    }
    return to_ldm_vae(given)


def to_ldm_vae(given: Mapping[str, Place]) -> dict[str, Place]:
    """The places of a VAE by LDM name; `given`: by diffusers' names."""
    levels = 1 + max(int(name.split(".")[2]) for name in given if name.startswith("encoder.down_blocks."))
    first = (name.split(".")[4] for name in given if name.startswith("encoder.down_blocks.0.resnets."))
    config = {"block_out_channels": [0] * levels, "layers_per_block": 1 + max(map(int, first))}
    return to_ldm(vae_links(config), keys.LDM_VAE, given)
