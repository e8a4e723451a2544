"""Where the tensors of a model's parts lie: in an LDM file, in the libraries' own files, in a diffusers folder. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.errors import BadInput
from trainer.messages import say
from trainer.models import configs, folder_files, keys, layouts
from trainer.models.configs import Config, Rules, UnknownLayout
from trainer.models.library_names import Link, unet_links, vae_links
from trainer.models.loading import NOT_AS_IT_SHOULD_BE, PartPlan, Place, rows_of
from trainer.models.opening import shown
from trainer.models.safetensors_file import FLOATS, Header, TensorInfo
from trainer.models.text_encoders import TextEncoder
from trainer.models.weights_file import read_header

_OLD_VAE_SIGN = "encoder.down_blocks.0.resnets.0.conv1.weight"  # diffusers' names
_LAYER = re.compile(r"\bencoder\.layers\.(\d{1,4})\.")
_KEPT = ("logit_scale", "text_projection")  # what OpenCLIP files have and transformers' model may not


def plan_unet(source: Path, rules: Rules) -> PartPlan:
    """Raises BadInput, as the others here do, if the part is missing or laid out as no model of the family."""
    return _explained("unet", source, lambda: _unet_folder(source) if source.is_dir() else _unet_file(source, rules))


def plan_vae(source: Path, rules: Rules) -> PartPlan:
    """A VAE in a checkpoint, alone in a file (with LDM's or diffusers' names), or in a folder."""
    return _explained("vae", source, lambda: _vae_folder(source) if source.is_dir() else _vae_file(source, rules))


def plan_text(source: Path, encoder: TextEncoder, rules: Rules) -> PartPlan:
    """A text encoder in a checkpoint, alone in a file, or in a folder."""

    def plan() -> PartPlan:
        found = _text_folder(source, encoder) if source.is_dir() else _text_file(source, encoder, rules)
        if found is None:
            raise UnknownLayout(say("it has none"))
        return found

    return _explained(encoder.part, source, plan)


def choose_text(
    source: Path, others: Sequence[Path], encoders: Sequence[TextEncoder], rules: Rules
) -> dict[TextEncoder, Path]:
    """Which file each text encoder is taken from: the first of `others` that has it and is not used up, else the model.

    A file that holds one encoder alone serves one, whatever its place in the list; a checkpoint or a folder may serve
    several. Raises BadInput for a file of `others` from which nothing is taken.
    """
    left, chosen = list(others), {}
    pooled = _pooled_width(source, rules) if others and any(encoder.pooled for encoder in encoders) else None
    for encoder in encoders:
        chosen[encoder] = next((path for path in left if _has_text(path, encoder, rules, pooled)), source)
        if chosen[encoder] in left and _is_alone(chosen[encoder]):
            left.remove(chosen[encoder])
    unused = [path for path in others if path not in chosen.values()]
    if unused:
        raise BadInput(
            say("No text encoder that fits this model is in {path}.", path=str(unused[0])),
            say("Choose text encoders of the same family, or none if the model has its own."),
        )
    return chosen


def _pooled_width(source: Path, rules: Rules) -> int | None:
    """How long the pooled vector is that the model's UNet is told: beside it stand six numbers, each as sinusoids."""
    config = plan_unet(source, rules).config
    told, width = config.get("projection_class_embeddings_input_dim"), config.get("addition_time_embed_dim")
    return told - 6 * width if isinstance(told, int) and isinstance(width, int) else None


def _has_text(path: Path, encoder: TextEncoder, rules: Rules, pooled: int | None) -> bool:
    """Whether a file or folder has this encoder. A projection of the `pooled` vector's length tells those alone apart."""
    try:
        plan = _text_folder(path, encoder) if path.is_dir() else _text_file(path, encoder, rules)
    except BadInput:
        raise
    except (OSError, *NOT_AS_IT_SHOULD_BE) as error:
        raise _unusable(encoder.part, path, error) from error
    return plan is not None and (pooled is None or (plan.config.get("projection_dim") == pooled) == encoder.pooled)


def _is_alone(path: Path) -> bool:
    return path.is_file() and not any(name.startswith(keys.LDM_UNET) for name in read_header(path, located=False).tensors)


def _explained(part: str, source: Path, plan: Callable[[], PartPlan]) -> PartPlan:
    try:
        found = plan()
    except BadInput:
        raise
    except (OSError, *NOT_AS_IT_SHOULD_BE) as error:
        raise _unusable(part, source, error) from error
    for name, place in found.tensors.items():
        if place.info.dtype not in FLOATS:
            raise BadInput(
                say(
                    "The weight {name} of {path} holds numbers of the kind {dtype}, with which nothing can be computed.",
                    name=shown(name),
                    path=str(place.path),
                    dtype=shown(place.info.dtype, 12),
                ),
                say("Choose a version of the model in fp32, fp16 or bf16."),
            )
    return found


def _unusable(part: str, source: Path, error: Exception) -> BadInput:
    reason = getattr(error, "why", None) or getattr(error, "strerror", None) or str(error)
    name = part.replace("_", " ")
    return BadInput(say("In {path}, the {part} cannot be used: {reason}.", path=str(source), part=name, reason=reason))


# --- one LDM file ---


def _unet_file(path: Path, rules: Rules) -> PartPlan:
    header = read_header(path)
    names = layouts.unet_names(header.tensors)
    header = replace(header, tensors={names.get(name, name): info for name, info in header.tensors.items()})
    shapes = layouts.strip(header.shapes, keys.LDM_UNET)
    config = configs.unet_config(shapes, rules) | configs.config_beside(path).get("unet", {})
    configs.refuse_endless(config, len(header.tensors))
    return PartPlan("unet", config, _linked(path, header, keys.LDM_UNET, unet_links(config), _same_name))


def _vae_file(path: Path, rules: Rules) -> PartPlan:
    header = read_header(path)
    prefix = "" if "encoder.conv_in.weight" in header.tensors else keys.LDM_VAE
    beside = configs.config_beside(path).get("vae", {})
    if f"{prefix}{_OLD_VAE_SIGN}" in header.tensors:
        return _diffusers_vae(path, header, prefix, rules, beside)
    config = configs.vae_config(layouts.strip(header.shapes, prefix), rules) | beside
    configs.refuse_endless(config, len(header.tensors))
    return PartPlan("vae", config, _linked(path, header, prefix, vae_links(config), _same_name))


def _diffusers_vae(path: Path, header: Header, prefix: str, rules: Rules, beside: Config) -> PartPlan:
    """A VAE in one file with diffusers' names: as LDM's names, its sizes are read in the same way."""
    infos = {keys.modern_vae_name(name[len(prefix) :]): info for name, info in header.tensors.items()}
    shapes = {name: info.shape for name, info in infos.items()}
    config = configs.vae_config(_ldm_vae_shapes(shapes), rules) | beside
    return PartPlan("vae", config, {name: Place(path, info) for name, info in infos.items()})


def _ldm_vae_shapes(shapes: configs.Shapes) -> dict[str, tuple[int, ...]]:
    """The few names that `vae_config` looks at, from diffusers' to LDM's."""
    plain = {"encoder.down_blocks.": "encoder.down.", ".resnets.": ".block."}
    renamed = dict(shapes)
    for name, shape in shapes.items():
        new = name
        for theirs, ours in plain.items():
            new = new.replace(theirs, ours)
        renamed[new] = shape
    if "encoder.mid_block.attentions.0.to_q.weight" in shapes:
        renamed["encoder.mid.attn_1.q.weight"] = shapes["encoder.mid_block.attentions.0.to_q.weight"]
    return renamed


def _text_file(path: Path, encoder: TextEncoder, rules: Rules) -> PartPlan | None:
    """The encoder in a checkpoint, or alone in a file with OpenCLIP's or transformers' names; None if it is not there."""
    header = read_header(path)
    prefix = encoder.prefix_in(header.shapes)
    beside = configs.config_beside(path).get(encoder.part, {})
    if prefix is None:
        return _library_text(path, header, encoder, rules, beside)
    config = encoder.config(layouts.strip(header.shapes, prefix), rules) | beside
    configs.refuse_endless(config, len(header.tensors))
    tensors = _linked(path, header, prefix, encoder.links(config), encoder.module_name)
    taken = set(tensors)
    kept = {
        encoder.prefixes[0] + name: Place(path, header.tensors[prefix + name])
        for name in (_KEPT if encoder.names == "open_clip" else ())
        if prefix + name in header.tensors and f"{name}.weight" not in taken
    }
    return PartPlan(encoder.part, config, tensors, kept)


def _library_text(
    path: Path, header: Header, encoder: TextEncoder, rules: Rules, beside: Config
) -> PartPlan | None:
    """A text encoder alone in a file with transformers' names."""
    infos = {name.removeprefix("text_model."): info for name, info in header.tensors.items()}
    if "embeddings.token_embedding.weight" not in infos or (encoder.pooled and "text_projection.weight" not in infos):
        return None
    shapes = {name: info.shape for name, info in infos.items()}
    config = encoder.library_config(shapes, rules) | beside
    rows = ((path, name, info) for name, info in infos.items())
    return PartPlan(encoder.part, config, _text_tensors(rows, encoder, config))


def _same_name(name: str) -> str:
    return name


def _linked(
    path: Path, header: Header, prefix: str, links: Iterable[Link], module_name: Callable[[str], str]
) -> dict[str, Place]:
    """The places of the tensors that an LDM file has under `prefix`, by their names in the library's module."""
    tensors = {}
    for link in links:
        info = header.tensors.get(prefix + link.ldm)
        if info is not None:
            if link.how == "third":
                rows = info.shape[0] // 3
                info = rows_of(info, rows * link.third, rows)
            tensors[module_name(link.library)] = Place(path, info, link.how == "turned")
    return tensors


# --- a diffusers folder ---


def _unet_folder(folder: Path) -> PartPlan:
    inner, config = _part_folder(folder, "unet")
    return PartPlan("unet", config, {name: Place(path, info) for path, name, info in _tensors(inner)})


def _vae_folder(folder: Path) -> PartPlan:
    inner, config = _part_folder(folder, "vae")
    return PartPlan(
        "vae", config, {keys.modern_vae_name(name): Place(path, info) for path, name, info in _tensors(inner)}
    )


def _text_folder(folder: Path, encoder: TextEncoder) -> PartPlan | None:
    if not (folder / encoder.part / "config.json").is_file() and not (folder / "config.json").is_file():
        return None
    inner, said = _part_folder(folder, encoder.part)
    config = encoder.without_unused(dict(said))
    return PartPlan(encoder.part, config, _text_tensors(_tensors(inner), encoder, config))


def _text_tensors(
    rows: Iterable[tuple[Path, str, TensorInfo]], encoder: TextEncoder, config: Config
) -> dict[str, Place]:
    """Position numbers are made anew; CLIP-L's projection, which some files carry, has no place in a plain encoder.

    Nor has the scale of CLIP's similarities in any, nor a layer that is not run.
    """
    unwanted = ("logit_scale",) if encoder.pooled else ("logit_scale", "text_projection")
    return {
        encoder.module_name(name): Place(path, info)
        for path, name, info in rows
        if not name.endswith("position_ids") and not name.startswith(unwanted) and _is_run(name, config)
    }


def _is_run(name: str, config: Config) -> bool:
    layer, count = _LAYER.search(name), config.get("num_hidden_layers")
    return layer is None or not isinstance(count, int) or int(layer[1]) < count


def _part_folder(folder: Path, part: str) -> tuple[Path, Mapping[str, Any]]:
    """The folder of a part (or of that part alone) and its config."""
    inner = folder / part if (folder / part).is_dir() else folder
    return inner, folder_files.read_json(inner / "config.json")


def _tensors(folder: Path) -> Iterator[tuple[Path, str, TensorInfo]]:
    for path in folder_files.weight_files(folder):
        for name, info in read_header(path).tensors.items():
            yield path, name, info
