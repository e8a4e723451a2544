"""What a model file is, told from its header in milliseconds: no torch, no weights read, and never an exception.

`inspect_file` serves the window while a path is typed, `check` before a run, and the loader before it reads.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from trainer.errors import BadInput
from trainer.messages import Message, say
from trainer.models import configs, layouts
from trainer.models.safetensors_file import Header, NotSafetensors, read_header

Kind = Literal[
    "base", "lora", "vae", "embedding", "hypernetwork", "controlnet", "adapter", "upscaler", "text_encoder",
    "pickle", "unknown", "broken", "missing",
]  # fmt: skip
FAMILY_TITLES = {
    "sd1": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "SDXL",
    "sdxl_refiner": "SDXL refiner",
    "sd3": "Stable Diffusion 3",
    "flux": "FLUX",
}
TRAINABLE = ("sd1",)
_DTYPE_NAMES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64", "F8_E4M3": "fp8", "F8_E5M2": "fp8"}
_ARCHIVE = say("This is a packed archive. Unpack it first and choose the model inside.")
_PICTURE = say("This is a picture, not a model.")
_LFS_POINTER = say(
    "This is only a Git LFS pointer, a note of a hundred bytes in place of the model: the real "
    "file was not downloaded. Fetch it with `git lfs pull` or from the model's page."
)
_GGUF = say(
    "This is a GGUF file: quantised weights for running a model, not for training it. Choose the safetensors version."
)
_SIGNS = (  # what the first bytes of files that are no models look like
    (b"version https://git-lfs", _LFS_POINTER),
    (b"GGUF", _GGUF),
    (b"\x89PNG", _PICTURE),
    (b"\xff\xd8\xff", _PICTURE),
    (b"7z\xbc\xaf", _ARCHIVE),
    (b"Rar!", _ARCHIVE),
)
_PICKLE = say(
    "This is a model in the old .ckpt/.pt format, which can hold programs and cannot be read "
    "yet. Choose the .safetensors version, or convert it with the WebUI's checkpoint merger (no "
    "second model, format safetensors)."
)


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model file or folder.

    Attributes:
        path: as asked.
        kind: what sort of file; "missing" if there is none, "broken" if it is damaged.
        family: the architecture it belongs to, None if unknown or none.
        summary: one sentence for the window.
        problem: why nothing can be trained on it, None if it is a whole model of a family that trains.
        prediction: "epsilon" or "v_prediction" for a base model.
        dtype: of most of its bytes: "fp32", "fp16", "bf16", "fp8".
        parts: of "unet", "vae", "text_encoder" those present.
        num_bytes: its size on disk.
        native_resolution: in pixels, for a base model.
        metadata: the header's strings (a LoRA's `ss_*` among them).
        latent_channels: of a VAE.
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


def inspect_file(path: Path | str) -> ModelFacts:
    """Say what a file or a diffusers folder is. Any thread; never raises, whatever the file."""
    path = Path(path)
    try:
        if path.is_dir():
            return _inspect_folder(path)
        if not path.is_file():
            return _bad(path, "missing", say("There is no file or folder {path}.", path=str(path)))
        return _inspect_file(path)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        return _bad(
            path, "broken", say("The file {path} cannot be read: {reason}.", path=str(path), reason=_reason(error))
        )


def base_problem(facts: ModelFacts, has_vae: bool = False) -> Message | None:
    """Why a run cannot train on it, or None. `has_vae`: a separate VAE was chosen."""
    if facts.problem is None and "vae" not in facts.parts and not has_vae:
        return say("There is no VAE inside this model. Choose a VAE file beside it.")
    return facts.problem


def vae_problem(facts: ModelFacts) -> Message | None:
    """Why it cannot serve as the separate VAE of an SD 1.x model, or None."""
    if facts.kind in ("missing", "broken", "pickle"):
        return facts.problem
    if "vae" not in facts.parts:
        return say("A VAE is needed here. {summary}", summary=facts.summary)
    if facts.kind == "vae" and facts.latent_channels not in (None, 4):
        return say(
            "This VAE has {channels} latent channels and belongs to another kind of model; Stable Diffusion 1.x has 4.",
            channels=facts.latent_channels or 0,
        )
    if facts.kind == "base" and facts.family not in ("sd1", "sd2"):
        return say("A VAE for Stable Diffusion 1.x is needed here. {summary}", summary=facts.summary)
    return None


def lora_problem(facts: ModelFacts) -> Message | None:
    """Why training cannot go on from it as an SD 1.x LoRA, or None."""
    if facts.kind in ("missing", "broken", "pickle"):
        return facts.problem
    if facts.kind != "lora":
        return say("A LoRA is needed here. {summary}", summary=facts.summary)
    if facts.family != "sd1":
        return say("A LoRA made for Stable Diffusion 1.x is needed here. {summary}", summary=facts.summary)
    return None


def _bad(path: Path, kind: Kind, text: Message, num_bytes: int = 0) -> ModelFacts:
    return ModelFacts(path, kind, None, text, text, num_bytes=num_bytes)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")


def _inspect_file(path: Path) -> ModelFacts:
    num_bytes = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(512)
    text = _by_first_bytes(path, head)
    if text is not None:
        kind: Kind = "pickle" if text is _PICKLE else "broken" if not head else "unknown"
        return _bad(path, kind, text, num_bytes)
    try:
        header = read_header(path)
    except NotSafetensors as error:
        return _bad(path, "broken" if error.cut_short else "unknown", _not_safetensors(path, error), num_bytes)
    facts = _from_header(path, header)
    return replace(facts, num_bytes=num_bytes, dtype=_dtype(header), metadata=tuple(sorted(header.metadata.items())))


def _by_first_bytes(path: Path, head: bytes) -> Message | None:
    """A sentence for files that are plainly no safetensors."""
    if not head:
        return say("The file is empty: the download failed. Download it again.")
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return say(
            "This is a web page saved under a model's name: the download asked for a login or a "
            "confirmation. Download it again in a browser."
        )
    if head.startswith(b"\x80") and head[1:2] in b"\x02\x03\x04\x05" and head[8:9] != b"{":
        return _PICKLE
    if head.startswith(b"PK\x03\x04"):
        torch_zip = b"data.pkl" in head or path.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin")
        return _PICKLE if torch_zip else _ARCHIVE
    return next((text for sign, text in _SIGNS if head.startswith(sign)), None)


def _not_safetensors(path: Path, error: NotSafetensors) -> Message:
    if error.cut_short:
        return say(
            "The file is cut short ({reason}): the download or copy is not complete. Download it again.",
            reason=error.why,
        )
    if path.suffix.lower() in (".safetensors", ".sft"):
        return say(
            "The file is damaged or no model in spite of its name ({reason}). Download it again.", reason=error.why
        )
    return say("This is not a model file that Athanor knows. Models are .safetensors files or diffusers folders.")


def _dtype(header: Header) -> str | None:
    sizes: dict[str, int] = {}
    for info in header.tensors.values():
        if info.dtype in _DTYPE_NAMES:
            sizes[info.dtype] = sizes.get(info.dtype, 0) + info.num_bytes
    return _DTYPE_NAMES[max(sizes, key=lambda name: sizes[name])] if sizes else None


def _from_header(path: Path, header: Header) -> ModelFacts:
    found = layouts.recognise(header.shapes, header.metadata)
    if found.kind == "base":
        return _base(path, header, found)
    summary = _summary(found)
    parts = frozenset({"vae"}) if found.kind == "vae" else frozenset()
    problem = say("{summary} A base model (checkpoint) is needed here.", summary=summary)
    return ModelFacts(
        path, found.kind, found.family, summary, problem, parts=parts, latent_channels=found.latent_channels
    )


def _summary(found: layouts.Found) -> Message:
    family = FAMILY_TITLES.get(found.family or "", "")
    sentences = {
        "lora": say("This is a LoRA for {family}.", family=family) if family else say("This is a LoRA."),
        "vae": say("This is a VAE with {channels} latent channels.", channels=found.latent_channels or 0),
        "embedding": say("This is an embedding (textual inversion)."),
        "hypernetwork": say("This is a hypernetwork."),
        "controlnet": say("This is a ControlNet."),
        "adapter": say("This is an add-on (IP-Adapter, T2I-Adapter or motion module)."),
        "upscaler": say("This is an upscaler."),
        "text_encoder": say("This is a text encoder alone."),
    }
    return sentences.get(found.kind, say("This holds tensors, but no model that Athanor knows."))


def _base(path: Path, header: Header, found: layouts.Found) -> ModelFacts:
    facts = ModelFacts(path, "base", found.family, say("{family} model.", family=FAMILY_TITLES[found.family or ""]))
    facts = replace(
        facts, parts=found.parts, native_resolution=_resolution(header) or (512 if found.family == "sd1" else None)
    )
    if found.family not in TRAINABLE:
        return replace(facts, problem=_other_family(found.family or ""), prediction=None)
    try:
        beside = configs.config_beside(path)
        layouts.check_sd1(header.shapes, found)
    except BadInput as error:
        return replace(facts, problem=error.what)
    except configs.UnknownLayout as error:
        text = say("The model is laid out as Stable Diffusion 1.x, but is not whole: {reason}.", reason=error.why)
        return replace(facts, kind="broken", summary=text, problem=text)
    marked = "v" if "v_pred" in header.tensors else header.metadata.get("modelspec.prediction_type", "")
    prediction = beside.get("model", {}).get("prediction") or ("v_prediction" if marked.startswith("v") else "epsilon")
    return _trainable(replace(facts, prediction=prediction), found.in_channels)


def _trainable(facts: ModelFacts, in_channels: int | None) -> ModelFacts:
    """Add the last reasons not to train on an SD 1.x model: inpainting, missing parts."""
    if in_channels != 4:
        text = say(
            "This is an inpainting or other special version of Stable Diffusion 1.x ({channels} input "
            "channels). Choose the ordinary version: a LoRA made on that one works on both.",
            channels=in_channels or 0,
        )
        return replace(facts, summary=text, problem=text)
    if "unet" not in facts.parts:
        return replace(facts, problem=say("There is no UNet in this model."))
    if "text_encoder" not in facts.parts:
        return replace(
            facts,
            problem=say("There is no text encoder in this model. Choose the full version of it, not the UNet alone."),
        )
    if "vae" not in facts.parts:
        return replace(facts, summary=say("{family} model without a VAE.", family=FAMILY_TITLES["sd1"]))
    return facts


def _other_family(family: str) -> Message:
    return say(
        "This is a {family} model. Only Stable Diffusion 1.x models can be trained yet.", family=FAMILY_TITLES[family]
    )


def _resolution(header: Header) -> int | None:
    match = re.match(r"(\d{2,5})", header.metadata.get("modelspec.resolution", ""))
    return int(match[1]) if match else None


def _inspect_folder(folder: Path) -> ModelFacts:
    """A diffusers folder: `model_index.json` and a folder a part, each with a config and safetensors weights."""
    try:
        found = layouts.recognise_folder(folder)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        return _bad(
            folder, "broken", say("The model folder has a config that cannot be read: {reason}.", reason=str(error))
        )
    if found is None:
        return _bad(
            folder,
            "unknown",
            say(
                "This folder is not a diffusers model: it has no model_index.json. Choose a model file, or "
                "the folder above or below."
            ),
        )
    summary = say("{family} model (diffusers folder).", family=FAMILY_TITLES.get(found.family or "", "?"))
    if found.kind == "vae":
        summary = _summary(found)
    facts = ModelFacts(
        folder, found.kind, found.family, summary, parts=found.parts, latent_channels=found.latent_channels
    )
    facts = replace(facts, num_bytes=sum(path.stat().st_size for path in folder.glob("*/*.safetensors")))
    if found.kind == "vae":
        return replace(facts, problem=say("{summary} A base model (checkpoint) is needed here.", summary=summary))
    if found.family is None:
        text = say("This is a diffusers folder of a kind that Athanor does not know ({name}).", name=found.name)
        return replace(facts, kind="unknown", summary=text, problem=text)
    if found.family not in TRAINABLE:
        return replace(facts, problem=_other_family(found.family))
    if found.lacks is not None:
        return replace(
            facts, kind="broken", problem=say("The model folder is not complete: {reason}.", reason=found.lacks)
        )
    facts = replace(
        facts, prediction=found.prediction, native_resolution=found.native_resolution, dtype=_folder_dtype(folder)
    )
    return _trainable(facts, found.in_channels)


def _folder_dtype(folder: Path) -> str | None:
    files = layouts.weight_files(folder / "unet")
    return _dtype(read_header(files[0])) if files else None
