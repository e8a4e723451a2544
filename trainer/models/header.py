"""What a model file is, told from its header in milliseconds: no torch, no weights read, nothing run, never an exception.

`inspect_file` serves the window while a path is typed or a file is dragged, `check` before a run, and the loader.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from trainer.errors import BadInput
from trainer.messages import Message, say
from trainer.models import configs, folders, hub, layouts, predictions, strangers
from trainer.models.adapter_layouts import Adapter
from trainer.models.folder_files import BadConfig, weight_files
from trainer.models.opening import NotWeights, open_plain, shown
from trainer.models.pickle_machine import BadPickle
from trainer.models.safetensors_file import FLOATS, Header
from trainer.models.weights_file import HEAD_BYTES, read_header

Kind = Literal[
    "base", "part", "lora", "vae", "embedding", "hypernetwork", "aesthetic", "controlnet", "adapter", "upscaler",
    "text_encoder", "stranger", "pickle", "unknown", "broken", "missing", "hub",
]  # fmt: skip
FAMILY_TITLES = {
    "sd1": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "SDXL",
    "sdxl_refiner": "SDXL refiner",
    "sd3": "Stable Diffusion 3",
    "flux": "FLUX",
}
TRAINABLE = ("sd1", "sd2", "sdxl")
LATENT_CHANNELS = {"sd1": 4, "sd2": 4, "sdxl": 4, "sdxl_refiner": 4, "sd3": 16, "flux": 16}
NATIVE_RESOLUTION = {"sd1": 512, "sd2": 512, "sdxl": 1024}  # SD 2.x with v-prediction: 768
PLAIN_CHANNELS, INPAINTING_CHANNELS = 4, 9
_DTYPE_NAMES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64", "F8_E4M3": "fp8", "F8_E5M2": "fp8"}


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model file or folder.

    Attributes:
        path: as asked; of an id on the hub where it lies on this disk, if it does.
        kind: what sort of file; "missing" if there is none, "broken" if it is damaged, "pickle" if it was refused
            because it wants to import what no model needs, "part" for a piece of a diffusers folder, "hub" for an id
            whose model is still to be downloaded (nothing else is known then but its size, or 0).
        family: the architecture it belongs to, None if unknown or none.
        summary: one sentence for the window.
        problem: why nothing can be trained on it, None if it is a whole model of a family that trains.
        use: what it can be used for here, None for what cannot be read.
        prediction: "epsilon" or "v_prediction" for a base model, None where nothing says it (SD 2.x).
        prediction_source: "metadata", "marker", "config" or "family"; None where nothing says it.
        contradicted: whether another source says the other prediction.
        foreign: the name of a prediction or noise that nothing is trained with here.
        zero_snr: whether the model was trained with zero terminal SNR; None where nothing says it.
        dtype: of most of its bytes: "fp32", "fp16", "bf16", "fp8".
        dtypes: bytes by dtype.
        parts: of a base model those present ("unet", "vae", "text_encoder", "text_encoder_2"); of a LoRA those it changes.
        missing: the parts of its family that a base model lacks.
        in_channels: of a base model's UNet: 4, or 9 for inpainting.
        averaged: whether a base model holds averaged weights (EMA) beside or instead of its own.
        num_bytes: its size on disk.
        num_tensors: how many tensors it holds.
        native_resolution: in pixels, for a base model.
        container: "safetensors", "torch_zip", "torch_pickle", "torch_tar" or "folder".
        metadata: a safetensors header's strings (a LoRA's `ss_*` among them).
        tree: what a pickle says beside tensors, as plain values.
        latent_channels: of a VAE.
        adapter: of a LoRA: its method, spelling, ranks and alpha.
        vectors: of an embedding, how many.
    """

    path: Path
    kind: Kind
    family: str | None
    summary: Message
    problem: Message | None = None
    prediction: str | None = None
    dtype: str | None = None
    parts: frozenset[str] = frozenset()
    num_bytes: int = 0
    native_resolution: int | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    latent_channels: int | None = None
    use: Message | None = None
    prediction_source: str | None = None
    contradicted: bool = False
    foreign: str | None = None
    zero_snr: bool | None = None
    dtypes: tuple[tuple[str, int], ...] = ()
    missing: frozenset[str] = frozenset()
    in_channels: int | None = None
    averaged: bool = False
    num_tensors: int = 0
    container: str | None = None
    tree: Mapping[str, Any] = field(default_factory=dict)
    adapter: Adapter | None = None
    vectors: int | None = None


def inspect_file(path: Path | str) -> ModelFacts:
    """Say what a file, a diffusers folder or a hub's id is. Any thread, no network; never raises, whatever the file."""
    given, path = path, Path(path)
    try:
        if path.is_dir():
            return _inspect_folder(path)
        if not path.exists():
            return _on_the_hub(given) or _missing(path)
        return _inspect_file(path)
    except NotWeights as error:
        return _bad(path, "broken", say("The file {path} cannot be read: {reason}.", path=str(path), reason=error.why))
    except (OSError, ValueError, RecursionError, MemoryError) as error:  # ValueError: a path with a zero byte in it
        return _bad(
            path, "broken", say("The file {path} cannot be read: {reason}.", path=str(path), reason=_reason(error))
        )


def base_problem(facts: ModelFacts, has_vae: bool = False, has_text: bool = False) -> Message | None:
    """Why a run cannot train on it, or None. `has_vae`, `has_text`: other files were chosen for these parts."""
    if facts.kind == "hub":
        return None
    if facts.problem is not None and not (has_text and _lacks_only_text(facts)):
        return facts.problem
    if "vae" not in facts.parts and not has_vae:
        return say("There is no VAE inside this model. Choose a VAE file beside it.")
    return None


def _lacks_only_text(facts: ModelFacts) -> bool:
    """Whether text encoders are the only reason why a base model cannot be trained."""
    missing = facts.missing - {"vae"}
    is_else_whole = facts.kind == "base" and "unet" in facts.parts and _unet_problem(facts) is None
    return is_else_whole and bool(missing) and missing <= {"text_encoder", "text_encoder_2"}


def text_encoder_problem(facts: ModelFacts, family: str | None = None) -> Message | None:
    """Why text encoders of a model of `family` (None: of any that trains) cannot be taken from it, or None."""
    if facts.kind in ("missing", "broken", "pickle", "hub"):
        return facts.problem
    if facts.kind in ("text_encoder", "part"):
        return None
    if facts.kind != "base" or facts.parts.isdisjoint(("text_encoder", "text_encoder_2")):
        return say("A text encoder is needed here. {summary}", summary=facts.summary)
    if family is not None and facts.family != family:
        title = FAMILY_TITLES.get(family, family)
        return say("A text encoder for {family} is needed here. {summary}", family=title, summary=facts.summary)
    return None


def vae_problem(facts: ModelFacts, family: str | None = None) -> Message | None:
    """Why it cannot serve as the separate VAE of a model of `family` (None: of any that trains), or None."""
    if facts.kind in ("missing", "broken", "pickle", "hub"):
        return facts.problem
    if "vae" not in facts.parts:
        return say("A VAE is needed here. {summary}", summary=facts.summary)
    wanted, title = LATENT_CHANNELS.get(family or "", 4), FAMILY_TITLES.get(family or "", "Stable Diffusion")
    if facts.kind == "vae" and facts.latent_channels not in (None, wanted):
        return say(
            "This VAE has {channels} latent channels and belongs to another kind of model; {family} has {wanted}.",
            channels=facts.latent_channels or 0,
            family=title,
            wanted=wanted,
        )
    if facts.kind == "base" and _vae_kind(facts.family) != _vae_kind(family or facts.family):
        return say("A VAE for {family} is needed here. {summary}", family=title, summary=facts.summary)
    return None


def lora_problem(facts: ModelFacts, family: str | None = None) -> Message | None:
    """Why training cannot go on from it as a LoRA for a model of `family` (None: of any that trains), or None."""
    if facts.kind in ("missing", "broken", "pickle", "hub"):
        return facts.problem
    if facts.kind != "lora":
        return say("A LoRA is needed here. {summary}", summary=facts.summary)
    if family is None and facts.family not in TRAINABLE:
        return say("A LoRA for a family that Athanor trains is needed here. {summary}", summary=facts.summary)
    if family is not None and facts.family != family:
        return say(
            "A LoRA made for {family} is needed here. {summary}",
            family=FAMILY_TITLES.get(family, family),
            summary=facts.summary,
        )
    return None


def _vae_kind(family: str | None) -> str | None:
    """SD 1.x and 2.x share their VAE's latents, SDXL and its refiner theirs."""
    return {"sd2": "sd1", "sdxl_refiner": "sdxl"}.get(family or "", family)


def _bad(path: Path, kind: Kind, text: Message, num_bytes: int = 0) -> ModelFacts:
    return ModelFacts(path, kind, None, text, text, num_bytes=num_bytes)


def _on_the_hub(given: Path | str) -> ModelFacts | None:
    """A model by its id: the facts of what is in the cache, else that it will be downloaded; None for a path."""
    hub_id = hub.parse(given)
    if hub_id is None:
        return None
    found = hub.look_up(hub_id)
    if found.path is not None:
        facts = inspect_file(found.path)
        return replace(facts, summary=say("{summary} It was downloaded from the hub.", summary=facts.summary))
    if found.num_bytes is None:
        text = say("{id} is not on this disk; the run will begin by downloading it from the hub.", id=str(hub_id))
    else:
        size = round(found.num_bytes / 1e9, 1)
        text = say(
            "{id} is not on this disk; the run will begin by downloading it from the hub ({size} GB).",
            id=str(hub_id),
            size=size,
        )
    return ModelFacts(Path(str(hub_id)), "hub", None, text, num_bytes=found.num_bytes or 0)


def _missing(path: Path) -> ModelFacts:
    if path.is_symlink():
        return _bad(path, "missing", say("{path} is a link to a file that is not there.", path=str(path)))
    return _bad(path, "missing", say("There is no file or folder {path}.", path=str(path)))


def _reason(error: Exception) -> str | Message:
    if isinstance(error, MemoryError):
        return say("there is not enough memory")
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")


# --- one file ---


def _inspect_file(path: Path) -> ModelFacts:
    with open_plain(path) as handle:
        num_bytes = handle.seek(0, 2)
        handle.seek(0)
        head = handle.read(HEAD_BYTES)
    text = strangers.by_first_bytes(path, head)
    if text is not None:
        return _bad(path, "broken" if not head else "unknown", text, num_bytes)
    try:
        header = read_header(path, located=False)
    except NotWeights as error:
        kind: Kind = "broken" if error.cut_short else "pickle" if _is_refused(error) else "unknown"
        return _bad(path, kind, strangers.not_weights(path, error, head), num_bytes)
    return replace(_from_header(path, header), num_bytes=num_bytes, **_figures(header))


def _is_refused(error: NotWeights) -> bool:
    return isinstance(error, BadPickle) and error.refused is not None


def _figures(header: Header) -> dict[str, Any]:
    """What every file of weights has."""
    sizes: Counter[str] = Counter()
    for info in header.tensors.values():
        sizes[_DTYPE_NAMES.get(info.dtype, info.dtype[:12])] += info.num_bytes
    floats = [(name, count) for name, count in sizes.most_common() if name in _DTYPE_NAMES.values()]
    return {
        "dtype": floats[0][0] if floats else None,
        "dtypes": tuple(sizes.most_common()),
        "metadata": tuple(sorted(header.metadata.items())),
        "tree": header.tree,
        "container": header.container,
        "num_tensors": len(header.tensors),
    }


def _from_header(path: Path, header: Header) -> ModelFacts:
    if not header.tensors:
        return _bad(path, "unknown", say("There are no weights in this file."))
    found = layouts.recognise(header.shapes, header.metadata)
    if found.kind == "base" and not found.name:
        return _base(path, header, found)
    summary = strangers.summary(found, FAMILY_TITLES.get(found.family or "", ""))
    facts = ModelFacts(
        path, found.kind, found.family, summary, say("{summary} A base model (checkpoint) is needed here.", summary=summary),
        parts=found.parts, latent_channels=found.latent_channels, adapter=found.adapter, vectors=found.vectors,
        in_channels=found.in_channels, use=strangers.use(found, found.family in TRAINABLE),
    )  # fmt: skip
    if found.kind == "base":
        return replace(facts, problem=_not_trained(found.name))
    return replace(facts, prediction=predictions.said(header.metadata)) if found.kind == "lora" else facts


def _base(path: Path, header: Header, found: layouts.Found) -> ModelFacts:
    family = found.family or ""
    facts = ModelFacts(
        path, "base", found.family, say("{family} model.", family=FAMILY_TITLES.get(family, "?")), parts=found.parts,
        in_channels=found.in_channels, averaged=found.averaged,
    )  # fmt: skip
    if family not in TRAINABLE:
        return _other_family(facts)
    if (kind := _packed(header)) is not None:
        return _packed_facts(facts, kind)
    try:
        beside = configs.config_beside(path)
        layouts.check_whole(header.shapes, found)
    except BadInput as error:
        return replace(facts, problem=error.what)
    except configs.UnknownLayout as error:
        title = FAMILY_TITLES[family]
        text = say("The model is laid out as {family}, but is not whole: {reason}.", family=title, reason=error.why)
        return replace(facts, kind="broken", summary=text, problem=text)
    told = predictions.tell(family, header, beside.get("model", {}))
    return _whole(_with_prediction(facts, told), _resolution(header))


# Names of the factors by which packed numbers are to be multiplied.
_SCALES = {".scale_weight": "fp8", ".weight_scale": "fp8", "scaled_fp8": "fp8", ".absmax": "nf4"}


def _packed(header: Header) -> str | None:
    """The kind of numbers that packed (quantised) weights have, None if all are plain ones."""
    scales = (kind for name in header.tensors for end, kind in _SCALES.items() if name.endswith(end))
    integers = (
        info.dtype[:12].lower()
        for name, info in header.tensors.items()
        if info.dtype not in FLOATS and name.endswith(("weight", "bias"))
    )
    return next(scales, None) or next(integers, None)


def _packed_facts(facts: ModelFacts, kind: str) -> ModelFacts:
    """The facts of a packed model; with factors beside its numbers it is none for any tool either."""
    text = say(
        "The weights of this {family} model are quantised ({kind}), for drawing alone. Choose its version in fp16, bf16 or "
        "fp32.",
        family=FAMILY_TITLES[facts.family or ""],
        kind=shown(kind),
    )
    facts = replace(facts, problem=text, use=None)
    return replace(facts, kind="unknown", summary=text) if kind in _SCALES.values() else facts


def _with_prediction(facts: ModelFacts, told: predictions.Told) -> ModelFacts:
    return replace(
        facts, prediction=told.prediction, prediction_source=told.source, zero_snr=told.zero_snr,
        contradicted=told.contradicted, foreign=told.foreign,
    )  # fmt: skip


def _whole(facts: ModelFacts, resolution: int | None) -> ModelFacts:
    """Add what a model of a family that trains lacks, or that nothing is missing; `resolution` where it is said."""
    family = facts.family or ""
    native = 768 if family == "sd2" and facts.prediction == "v_prediction" else NATIVE_RESOLUTION[family]
    wanted = frozenset(("unet", "vae", *folders.TEXT_PARTS[family]))
    facts = replace(
        facts, native_resolution=resolution or native, missing=wanted - facts.parts, use=say("Can be trained on here.")
    )
    problem = _unet_problem(facts) or _part_problem(facts)
    if problem is not None:
        return replace(facts, problem=problem, use=None)
    return replace(facts, summary=_whole_summary(facts))


def _whole_summary(facts: ModelFacts) -> Message:
    title = FAMILY_TITLES[facts.family or ""]
    if facts.in_channels == INPAINTING_CHANNELS:
        if "vae" in facts.missing:
            return say("{family} inpainting model without a VAE.", family=title)
        return say("{family} inpainting model.", family=title)
    return say("{family} model without a VAE.", family=title) if "vae" in facts.missing else facts.summary


def _unet_problem(facts: ModelFacts) -> Message | None:
    if facts.foreign is not None:
        return say(
            "This model predicts in another way ({kind}). Athanor trains on epsilon and v-prediction models.",
            kind=facts.foreign,
        )
    if "unet" not in facts.parts or facts.in_channels in (PLAIN_CHANNELS, INPAINTING_CHANNELS):
        return None
    return say(
        "This is a special version of {family} ({what}; {channels} input channels). Choose the ordinary version: a LoRA "
        "made on that one works on both.",
        family=FAMILY_TITLES[facts.family or ""],
        what=strangers.CHANNELS.get(facts.in_channels or 0, say("of an unknown purpose")),
        channels=facts.in_channels or 0,
    )


def _part_problem(facts: ModelFacts) -> Message | None:
    missing = facts.missing - {"vae"}
    if "unet" in missing:
        return say("There is no UNet in this model.")
    if "text_encoder" in missing:
        if "text_encoder_2" in facts.parts:
            return say("The first text encoder is missing. Choose the model's full version, or a text encoder beside it.")
        return say("There is no text encoder in this model. Choose its full version, or a text encoder beside it.")
    if missing:
        return say("The second text encoder is missing. Choose the model's full version, or a text encoder beside it.")
    return None


def _other_family(facts: ModelFacts) -> ModelFacts:
    problem = _not_trained(FAMILY_TITLES[facts.family or ""])
    if facts.family == "sdxl_refiner":
        problem = say(
            "This is the SDXL refiner, which only finishes what SDXL has drawn. Train on an SDXL base model: its LoRAs are "
            "used before the refiner."
        )
    return replace(facts, problem=problem)


def _not_trained(title: str) -> Message:
    return say("This is a {family} model. Athanor trains Stable Diffusion 1.x, 2.x and SDXL.", family=title)


def _resolution(header: Header) -> int | None:
    match = re.match(r"(\d{2,5})", header.metadata.get("modelspec.resolution", ""))
    return int(match[1]) if match else None


# --- a folder ---


def _inspect_folder(folder: Path) -> ModelFacts:
    """A diffusers folder: `model_index.json` and a folder a part, each with a config and weights; or one such part."""
    try:
        found = folders.recognise_folder(folder)
        if found is None:
            return _bad(folder, "unknown", strangers.no_model_folder(folder))
        files = [path for part in ("", *folders.PARTS) for path in weight_files(folder / part if part else folder)]
    except BadConfig as error:
        text = say("The model folder has a config that cannot be read: {reason}.", reason=str(error))
        return _bad(folder, "broken", text)
    facts = ModelFacts(
        folder, found.kind, found.family, strangers.summary(found, FAMILY_TITLES.get(found.family or "", "")),
        parts=found.parts, latent_channels=found.latent_channels, in_channels=found.in_channels, container="folder",
        num_bytes=sum(path.stat().st_size for path in files if path.is_file()),
        use=strangers.use(found, found.family in TRAINABLE),
    )  # fmt: skip
    if found.lacks is not None:
        text = say("The model folder is not complete: {reason}.", reason=found.lacks)
        return replace(facts, kind="broken" if found.kind == "base" else found.kind, problem=text)
    if found.kind != "base":
        return replace(facts, problem=_not_a_base(facts), **_folder_figures(_headers(files)))
    return _base_folder(facts, found, files)


def _not_a_base(facts: ModelFacts) -> Message:
    if facts.kind == "part":
        return say("{summary} Choose the folder above it, with model_index.json.", summary=facts.summary)
    return say("{summary} A base model (checkpoint) is needed here.", summary=facts.summary)


def _base_folder(facts: ModelFacts, found: layouts.Found, files: list[Path]) -> ModelFacts:
    if found.family is None:
        text = say("This is a diffusers folder of a kind that Athanor does not know ({name}).", name=found.name)
        return replace(facts, kind="unknown", summary=text, problem=text)
    facts = replace(facts, summary=say("{family} model (diffusers folder).", family=FAMILY_TITLES[found.family]))
    if found.family not in TRAINABLE:
        return replace(_other_family(facts), use=None)
    headers = _headers(files)
    kind = next((kind for header in headers if (kind := _packed(header)) is not None), None)
    if kind is not None:
        return _packed_facts(facts, kind)
    told = predictions.tell_folder(found.family, found.prediction, found.zero_snr)
    return replace(_whole(_with_prediction(facts, told), found.native_resolution), **_folder_figures(headers))


def _headers(files: list[Path]) -> list[Header]:
    return [read_header(path, located=False) for path in files]


def _folder_figures(headers: list[Header]) -> dict[str, Any]:
    """The dtypes of a folder's weights."""
    sizes: Counter[str] = Counter()
    count = 0
    for header in headers:
        count += len(header.tensors)
        sizes.update(dict(_figures(header)["dtypes"]))
    floats = [name for name, _ in sizes.most_common() if name in _DTYPE_NAMES.values()]
    return {"dtype": floats[0] if floats else None, "dtypes": tuple(sizes.most_common()), "num_tensors": count}
