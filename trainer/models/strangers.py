"""Sentences for files that are no base models: what they are, why they cannot be read, what they are good for here."""

from __future__ import annotations

import codecs
from itertools import islice
from pathlib import Path

from trainer.messages import Message, say
from trainer.models.adapter_layouts import Adapter
from trainer.models.layouts import Found
from trainer.models.opening import NotWeights, shown
from trainer.models.pickle_machine import BadPickle
from trainer.models.weights_file import WEIGHT_SUFFIXES

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
    (b"\x1f\x8b", _ARCHIVE),
)
TORCH_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
CHANNELS = {  # what UNets with other numbers of input channels are for
    5: say("with a depth map"),
    7: say("an upscaler"),
    8: say("InstructPix2Pix"),
}
METHOD_TITLES = {
    "lora": "LoRA", "locon": "LoCon (LoRA with convolutions)", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr",
    "ia3": "IA3", "dylora": "DyLoRA", "glora": "GLoRA", "oft": "OFT", "boft": "BOFT", "full": "LyCORIS (full difference)",
    "norm": "LyCORIS (norms)",
}  # fmt: skip
CONTINUED_METHODS = ("lora", "locon")  # training goes on from these


def by_first_bytes(path: Path, head: bytes) -> Message | None:
    """A sentence for files that are plainly no weights; None for those that have to be looked into."""
    if not head:
        return say("The file is empty: the download failed. Download it again.")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<!--", b"<head")):
        return say(
            "This is a web page saved under a model's name: the download asked for a login or a "
            "confirmation. Download it again in a browser."
        )
    if path.name == "model_index.json":
        return say("This is the index of a diffusers folder. Choose the folder that it lies in.")
    if head.startswith(b"PK\x03\x04") and b"data.pkl" not in head and path.suffix.lower() not in TORCH_SUFFIXES:
        return _ARCHIVE
    sign = next((text for sign, text in _SIGNS if head.startswith(sign)), None)
    return sign if sign is not None or path.suffix.lower() not in WEIGHT_SUFFIXES else _words(head)


def _words(head: bytes) -> Message | None:
    """What to say of a text under a model's name, None if it is none."""
    try:
        text = " ".join(codecs.getincrementaldecoder("utf-8")().decode(head).split())  # its last letter may be cut
    except UnicodeDecodeError:
        return None
    if not text or not text.isprintable():
        return None
    return say("This is a text saved under a model's name: “{text}”. Download the model again.", text=shown(text, 80))


def not_weights(path: Path, error: NotWeights, head: bytes) -> Message:
    """Why a file could not be read as weights."""
    if error.cut_short:
        return say(
            "The file is cut short ({reason}): the download or copy is not complete. Download it again.",
            reason=error.why,
        )
    if isinstance(error, BadPickle) and error.refused is not None:
        return say(
            "This file is refused: {reason}. Choose the .safetensors version of the model.",
            reason=error.why,
        )
    if path.suffix.lower() in (".safetensors", ".sft", *TORCH_SUFFIXES) or head.startswith(b"PK"):
        return say(
            "The file is damaged or no model in spite of its name ({reason}). Download it again.", reason=error.why
        )
    return say(
        "This is not a model file that Athanor knows. Models are .safetensors, .ckpt, .pt or .bin files, or diffusers "
        "folders."
    )


def no_model_folder(folder: Path) -> Message:
    """What to say of a folder that is no model."""
    if (folder.parent / "model_index.json").is_file():
        return say("This is a folder inside a diffusers model. Choose the folder above it.")
    if (folder / "snapshots").is_dir():
        return say("This is the hub's store of a model. Choose the folder with model_index.json under snapshots.")
    alone = _only_weights(folder)
    if alone is not None:
        return say("This folder is no diffusers model. Choose the file {file} inside it.", file=alone)
    return say(
        "This folder is not a diffusers model: it has no model_index.json. Choose a model file, or "
        "the folder above or below."
    )


def _only_weights(folder: Path) -> str | None:
    """The name of the only model file that lies in a folder, among the first few hundred entries."""
    names = [path.name for path in islice(folder.iterdir(), 300) if path.suffix.lower() in WEIGHT_SUFFIXES]
    return shown(names[0]) if len(names) == 1 else None


def summary(found: Found, family: str) -> Message:
    """What a file is that is no base model of a known family; `family` is its family's title or ""."""
    if found.kind == "lora" and found.adapter is not None:
        return _adapter_summary(found.adapter, family)
    if found.kind == "embedding":
        return _embedding_summary(found, family)
    if found.kind == "base":
        return say("{family} model.", family=found.name or family)
    if found.kind in ("part", "text_encoder", "adapter", "stranger"):
        return _named_summary(found, family)
    sentences = {
        "vae": say("This is a VAE with {channels} latent channels.", channels=found.latent_channels or 0),
        "hypernetwork": say("This is a hypernetwork."),
        "aesthetic": say("This is an aesthetic embedding."),
        "controlnet": say("This is a ControlNet."),
        "upscaler": say("This is an upscaler."),
    }
    return sentences.get(found.kind, say("This holds tensors, but no model that Athanor knows."))


def _adapter_summary(adapter: Adapter, family: str) -> Message:
    title = METHOD_TITLES[adapter.method]
    return say("This is a {method} for {family}.", method=title, family=family) if family else say(
        "This is a {method}.", method=title
    )  # fmt: skip


def _embedding_summary(found: Found, family: str) -> Message:
    if family:
        return say(
            "This is an embedding (textual inversion) of {count} vectors for {family}.",
            count=found.vectors or 0,
            family=family,
        )
    return say("This is an embedding (textual inversion) of {count} vectors.", count=found.vectors or 0)


def _named_summary(found: Found, family: str) -> Message:
    if found.kind == "part":
        if family:
            return say("This is one part of a diffusers folder ({name}, {family}).", name=found.name, family=family)
        return say("This is one part of a diffusers folder ({name}).", name=found.name)
    if found.kind == "text_encoder":
        return say("This is a text encoder alone ({name}).", name=found.name) if found.name else say(
            "This is a text encoder alone."
        )  # fmt: skip
    if found.kind == "adapter":
        return say("This is an add-on for drawing ({name}).", name=found.name)
    return say("This is {name}, no model that draws.", name=found.name)


def use(found: Found, trains: bool) -> Message | None:
    """What a file can be used for here; `trains`: its family is one that Athanor trains."""
    if found.kind == "base":
        return None
    if found.kind == "vae":
        return say("Can be chosen as the VAE of a model.") if found.latent_channels in (None, 4) else None
    if found.kind == "lora" and found.adapter is not None and trains:
        if found.adapter.method in CONTINUED_METHODS:
            return say("Training can go on from it; the tools can join, resize or bake it.")
        return say("It can be used for drawing; its metadata can be read and edited here.")
    return say("It can be used for drawing in other programs; nothing is trained on it here.")
