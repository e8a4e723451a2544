"""Places a finished LoRA in the folder of the program that draws with it: model, preview picture and notes. No torch.

A program's folder is known by what is in it. The model goes last, so that a program never sees a half-placed one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import AthanorError, BadInput
from trainer.files import atomic_path, free_bytes, write_json
from trainer.hashes import model_hashes
from trainer.messages import Message, say
from trainer.models.header import inspect_file
from trainer.models.safetensors_file import Header, NotSafetensors, copied_header, read_header

_CHUNK = 1 << 22
_FORBIDDEN = set('<>:"/\\|?*') | {chr(code) for code in range(32)}
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
_SD_VERSIONS = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL", "flux": "Flux"}


@dataclass(frozen=True)
class Program:
    """A program by the signs in its folder (all must be there), and where in it LoRAs lie."""

    name: str
    signs: tuple[str, ...]
    loras: tuple[str, ...]
    notes: bool  # reads `<stem>.json`


PROGRAMS = (  # the more particular first: Forge has all that A1111 has
    Program("Stable Diffusion WebUI Forge", ("webui.py", "modules_forge"), ("models/Lora",), notes=True),
    Program("Stable Diffusion WebUI", ("webui.py", "modules"), ("models/Lora",), notes=True),
    Program("ComfyUI", ("main.py", "comfy"), ("models/loras",), notes=False),
)
_INSIDE = ("", "webui", "stable-diffusion-webui", "stable-diffusion-webui-forge", "ComfyUI")  # portable packages


@dataclass(frozen=True)
class Target:
    """A program found: its name, its root, and the folder that takes LoRAs (made when something is placed)."""

    program: str
    root: Path
    lora_folder: Path
    notes: bool


class Conflict(AthanorError):
    """Files of that name lie there already: ask, then place with `overwrite`."""

    exit_code = 2

    def __init__(self, files: tuple[Path, ...]) -> None:
        names = ", ".join(path.name for path in files)
        super().__init__(
            say("In {folder} there is already {names}.", folder=str(files[0].parent), names=names),
            say("Choose another name, or replace what is there."),
        )
        self.files = files


def find_target(folder: Path | str) -> Target | None:
    """The program whose folder this is; one of its inner folders or a portable package around it will do as well."""
    folder = Path(folder)
    try:
        roots = [folder / inner for inner in _INSIDE] + list(folder.parents)[:3]
        return next((target for root in roots if (target := _at(root)) is not None), None)
    except (OSError, ValueError):
        return None


def _at(root: Path) -> Target | None:
    for program in PROGRAMS:
        if all((root / sign).exists() for sign in program.signs):
            places = [root / place for place in program.loras]
            chosen = next((place for place in places if place.is_dir()), places[0])
            return Target(program.name, root, chosen, program.notes)
    return None


def name_problem(name: str) -> Message | None:
    """Why no file can have this name (without ending) on some system, or None."""
    if not name.strip() or name != name.strip() or name.endswith("."):
        return say("A name is needed that does not begin or end with a blank or end with a dot.")
    if any(character in _FORBIDDEN for character in name) or len(name.encode("utf-8")) > 200:
        return say('The name may not hold < > : " / \\ | ? * and not be longer than 200 bytes.')
    if name.split(".")[0].lower() in _DEVICES:
        return say("Windows keeps the name {name} for itself.", name=name)
    return None


def export_to(
    target: Target,
    source: Path,
    name: str,
    preview: Path | None = None,
    activation_text: str = "",
    preferred_weight: float = 0.0,
    overwrite: bool = False,
) -> Path:
    """Place a LoRA file in a program's folder and return where it lies now.

    Args:
        target: from `find_target`.
        source: the LoRA, a .safetensors of ours or of another program.
        name: of the new file, without ending; the program shows it.
        preview: a PNG for the program's card.
        activation_text: what a click on the card adds to the prompt.
        preferred_weight: 0 is the program's own default.
        overwrite: replace files of that name; the notes in `<name>.json` are merged in any case, never lost.

    Raises:
        Conflict: files of that name are there and `overwrite` was not given. Nothing was changed.
        BadInput: the name or the source cannot be used.
        AthanorError: the folder cannot be written, or the disk is full. What lay there before is whole.
    """
    problem = name_problem(name)
    if problem is not None:
        raise BadInput(problem)
    goal = target.lora_folder / f"{name}.safetensors"
    picture = target.lora_folder / f"{name}.preview.png"
    _check_conflict([goal] + ([picture] if preview is not None else []), overwrite)
    try:
        header = read_header(source)
        _check_space(goal, header)
        with atomic_path(goal) as temporary:
            _copy_renamed(source, header, temporary, name)
            if preview is not None:
                _copy_picture(preview, picture)
            if target.notes:
                _merge_notes(goal.with_suffix(".json"), source, activation_text, preferred_weight)
    except NotSafetensors as error:
        text = say("{path} cannot be exported: {reason}.", path=str(source), reason=error.why)
        raise BadInput(text) from error
    except OSError as error:
        raise _write_error(error, target.lora_folder) from error
    return goal


def _check_conflict(files: list[Path], overwrite: bool) -> None:
    there = tuple(path for path in files if path.exists())
    if there and not overwrite:
        raise Conflict(there)


def _check_space(goal: Path, header: Header) -> None:
    free = free_bytes(goal.parent)
    if free < header.file_bytes + (1 << 20):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(goal))


def _write_error(error: OSError, folder: Path) -> AthanorError:
    """What went wrong as a sentence for the user."""
    if error.errno == errno.ENOSPC:
        return AthanorError(
            say("The disk of {folder} is full; nothing was replaced.", folder=str(folder)),
            say("Free some space and export again."),
        )
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return AthanorError(
            say("The folder {folder} cannot be written.", folder=str(folder)),
            say("Close programs that use these files, or give yourself the right to write there, and export again."),
        )
    name = str(error.filename or folder)
    return AthanorError(say("Exporting failed at {path}: {reason}.", path=name, reason=error.strerror or str(error)))


def _merge_notes(path: Path, source: Path, activation_text: str, preferred_weight: float) -> None:
    """Fill the WebUI's notes beside the model; what the user wrote there before stays."""
    notes = _old_notes(path)
    family = inspect_file(source).family
    new: dict[str, Any] = {"sd version": _SD_VERSIONS.get(family or "", "Unknown")}
    if activation_text:
        new["activation text"] = activation_text
    if preferred_weight:
        new["preferred weight"] = preferred_weight
    blank = {"description": "", "sd version": "Unknown", "activation text": "", "preferred weight": 0.0,
             "negative text": "", "notes": ""}  # fmt: skip
    write_json(path, {**blank, **notes, **new}, indent=4)


def _old_notes(path: Path) -> Mapping[str, Any]:
    """The notes that are there. Raises BadInput for a file that is no such notes: it is not ours to replace."""
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise BadInput(
            say("{path} holds something else than the WebUI's notes on a model.", path=str(path)),
            say("Move it away or choose another name."),
        )
    return data


def _copy_picture(source: Path, goal: Path) -> None:
    """Copy a PNG with all that is written in it. Raises BadInput for another kind of file."""
    with source.open("rb") as handle:
        if handle.read(8) != b"\x89PNG\r\n\x1a\n":
            raise BadInput(say("The preview {path} is not a PNG picture.", path=str(source)))
    with atomic_path(goal) as temporary:
        shutil.copyfile(source, temporary)


def _copy_renamed(source: Path, header: Header, goal: Path, name: str) -> None:
    """Copy a LoRA with `ss_output_name` = `name`: two files with the same one hide each other in the WebUI.

    Tensors are copied byte by byte. The model hash is of the tensors and stays; the legacy hash moves with the header.
    """
    metadata = {**header.metadata, "ss_output_name": name}
    if "sshs_model_hash" in metadata:
        hashed = {key: value for key, value in metadata.items() if key.startswith("ss_")}
        metadata |= model_hashes(copied_header(header, hashed), _pieces(source, header.data_start))
    with goal.open("wb") as handle:
        handle.write(copied_header(header, metadata))
        for piece in _pieces(source, header.data_start):
            handle.write(piece)


def _pieces(path: Path, start: int) -> Iterator[bytes]:
    """The bytes of a file from `start` to its end."""
    with path.open("rb") as handle:
        handle.seek(start)
        while piece := handle.read(_CHUNK):
            yield piece
