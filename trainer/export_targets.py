"""Places what was trained in the folder of the program that draws with it: model, preview picture and notes. No torch.

A program's folder is known by what is in it; `PROGRAMS` is the table, `trainer/targets` has a file a program. The model
goes last, so that a program never sees a half-placed one.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import AthanorError, BadInput
from trainer.files import atomic_path, free_bytes
from trainer.hashes import model_hashes
from trainer.messages import Message, say
from trainer.models.header import ModelFacts, inspect_file
from trainer.models.safetensors_file import Header, NotSafetensors, copied_header, read_header
from trainer.targets import comfyui, fooocus, stability_matrix, swarmui, webui
from trainer.targets.base import Card, Kind, Program, Target, existing_first
from trainer.targets.installs import look_for_installs, models_in, well_known_places
from trainer.targets.refresh import TIMEOUT_S, refresh
from trainer.targets.wishes import wish_of

__all__ = [
    "PROGRAMS", "Conflict", "Kind", "Target", "export_to", "export_to_all", "find_target", "known_installs", "models_in",
    "name_problem", "refresh_wanted",
]  # fmt: skip

# The more particular first: a StabilityMatrix holds other programs, Fooocus has a webui.py too.
PROGRAMS: tuple[Program, ...] = tuple(
    program for module in (stability_matrix, swarmui, fooocus, webui, comfyui) for program in module.programs()
)
KINDS: Mapping[str, Kind] = {
    "lora": "lora", "base": "checkpoint", "embedding": "embedding", "vae": "vae", "hypernetwork": "hypernetwork",
}  # fmt: skip
_CHUNK = 1 << 22
_MAX_ABOVE = 12  # folders between a program's root and one that was chosen in it
_NAMESAKE_FILES, _NAMESAKE_SECONDS = 2000, 1.0
_FORBIDDEN = set('<>:"/\\|?*') | {chr(code) for code in range(32)}
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


class Conflict(AthanorError):
    """Files of that name lie there already: ask, then place with `overwrite`."""

    exit_code = 2

    def __init__(self, files: tuple[Path, ...]) -> None:
        folder = files[0].parent
        names = ", ".join(path.name if path.parent == folder else str(path) for path in files)
        super().__init__(
            say("In {folder} there is already {names}.", folder=str(folder), names=names),
            say("Choose another name, or replace what is there."),
        )
        self.files = files


def find_target(folder: Path | str) -> Target | None:
    """The program whose folder this is, None where there is no such folder.

    Its root, any folder in it, and a portable package around it will do. A folder in one of the program's own model
    folders is where files of that kind then go. A folder of no program is a target itself, with pictures and notes as
    the WebUI has them.
    """
    try:
        folder = Path(os.path.abspath(folder))  # what lies above a relative one counts too
        if not folder.is_dir():
            return None
        target = _at_or_inside(folder)
        for root in list(folder.parents)[:_MAX_ABOVE]:
            target = target or _at(root)
        return _narrowed(target, folder) if target is not None else _plain(folder)
    except (OSError, ValueError):
        return None


def _at_or_inside(folder: Path) -> Target | None:
    """The program whose root this is, or which a portable package holds in a folder of its own."""
    inner = dict.fromkeys(folder / name for program in PROGRAMS for name in program.inside)
    return next((target for root in (folder, *inner) if (target := _at(root)) is not None), None)


def _at(root: Path) -> Target | None:
    """The program whose root this is."""
    for program in PROGRAMS:
        folders = program.locate(root)
        if folders is not None:
            return Target(program.name, root, folders, program.notes, program.previews, program.api)
    return None


def _narrowed(target: Target, chosen: Path) -> Target:
    """The target with the chosen folder before the others of its kind, if it is one of them or within one."""
    if chosen == target.root:
        return target
    folders = dict(target.folders)
    for kind, places in target.folders.items():
        if any(place == chosen or place in chosen.parents for place in places):
            folders[kind] = tuple(dict.fromkeys([chosen, *places]))
    return Target(target.program, target.root, folders, target.notes, target.previews, target.api)


def _plain(folder: Path) -> Target:
    """A folder of no program: everything goes right into it."""
    kinds: tuple[Kind, ...] = ("lora", "checkpoint", "embedding", "vae", "hypernetwork")
    return Target("", folder, {kind: (folder,) for kind in kinds}, (webui.webui_notes,))


def known_installs(also: Iterable[Path | str] = ()) -> tuple[Target, ...]:
    """The programs found on this machine in well-known places, and those whose folders are in `also` (used before).

    Lists a few folders and walks no disk; it takes milliseconds, and at most some seconds where a disk sleeps. Any
    thread but the window's. Packages of a StabilityMatrix are found with it.
    """
    given = [target for folder in also if (target := find_target(folder)) is not None and target.program]
    found = [*given, *look_for_installs(_at_or_inside, [*_packages(given), *well_known_places()])]
    found += [target for place in _packages(found) if (target := _at(place)) is not None]
    return tuple({os.path.realpath(target.root): target for target in found}.values())


def refresh_wanted(target: Target, kind: Kind, timeout_s: float = TIMEOUT_S) -> Message | None:
    """Ask a running program to show what was placed in it, if the user wants that; see `trainer.targets.refresh`.

    Returns why it was asked and did not, as a note; None also where nobody wants it asked, or it needs no asking.
    """
    wish = wish_of(target.root)
    return refresh(target.api, wish.address, kind, timeout_s) if target.api and wish.refresh else None


def _packages(targets: Iterable[Target]) -> Iterator[Path]:
    """The programs inside StabilityMatrix libraries among the targets."""
    for target in targets:
        if target.program == "StabilityMatrix":
            try:
                yield from stability_matrix.packages(target.root)
            except OSError:
                continue


def name_problem(name: str) -> Message | None:
    """Why no file can have this name (without ending) on some system, or None."""
    if not name.strip() or name != name.strip() or name.endswith("."):
        return say("A name is needed that does not begin or end with a blank or end with a dot.")
    if any(character in _FORBIDDEN for character in name) or len(name.encode("utf-8")) > 200:
        return say('The name may not hold < > : " / \\ | ? * and not be longer than 200 bytes.')
    if name.split(".")[0].lower() in _DEVICES:
        return say("Windows keeps the name {name} for itself.", name=name)
    return None


def export_to_all(
    targets: Sequence[Target],
    source: Path,
    name: str,
    preview: Path | None = None,
    activation_text: str = "",
    preferred_weight: float = 0.0,
    overwrite: bool = False,
) -> tuple[Path, ...]:
    """Place a model in several programs; see `export_to`. A name that is taken in one of them stops all beforehand.

    A folder that several of them share gets it once, with the notes of each. Where a later one fails, the error says
    where it lies already.
    """
    problem = name_problem(name)
    if problem is not None:
        raise BadInput(problem)
    facts = inspect_file(source)
    folders = [_destination(target, source, facts)[1] for target in targets]
    taken: list[Path] = []
    for target, folder in zip(targets, folders, strict=True):
        with _explained(folder):
            _check_root(target)
            taken += [path for path in _files(target, folder, source, name, preview) if path.exists()]
    if taken and not overwrite:
        raise Conflict(tuple(dict.fromkeys(taken)))
    placed: dict[str, Path] = {}
    for target, folder in zip(targets, folders, strict=True):
        place = os.path.realpath(folder)
        again = overwrite or place in placed
        try:
            path = export_to(target, source, name, preview, activation_text, preferred_weight, again)
        except AthanorError as error:
            if not placed:
                raise
            paths = ", ".join(map(str, placed.values()))
            what = say("{reason} Before that it was placed at {paths}.", reason=error.what, paths=paths)
            raise AthanorError(what, error.todo) from error
        placed.setdefault(place, path)
    return tuple(placed.values())


def export_to(
    target: Target,
    source: Path,
    name: str,
    preview: Path | None = None,
    activation_text: str = "",
    preferred_weight: float = 0.0,
    overwrite: bool = False,
) -> Path:
    """Place a LoRA, a checkpoint, an embedding, a VAE or a hypernetwork, and return where it lies now.

    Args:
        target: from `find_target`.
        source: the file, ours or of another program; what it is decides the folder.
        name: of the new file, without ending; the program shows it.
        preview: a PNG for the program's card.
        activation_text: what a click on the card adds to the prompt.
        preferred_weight: 0 is the program's own default.
        overwrite: replace files of that name; notes beside them are merged in any case, never lost.

    Raises:
        Conflict: files of that name are there and `overwrite` was not given. Nothing was changed.
        BadInput: the name or the source cannot be used, or the program has no place for it.
        AthanorError: the folder cannot be written, or the disk is full. What lay there before is whole.
    """
    problem = name_problem(name)
    if problem is not None:
        raise BadInput(problem)
    facts = inspect_file(source)
    kind, folder = _destination(target, source, facts)
    goal, *pictures = _files(target, folder, source, name, preview)
    with _explained(folder):
        _check_root(target)
        if _same(source, goal):
            raise BadInput(say("{path} lies there already.", path=str(goal)), say("Choose another name or folder."))
        _check_conflict([goal, *pictures], overwrite)
        _check_space(goal, source.stat().st_size)
        with atomic_path(goal) as temporary:
            try:
                _copy_model(source, temporary, kind, name, activation_text, target, goal)
            except NotSafetensors as error:
                text = say("{path} cannot be exported: {reason}.", path=str(source), reason=error.why)
                raise BadInput(text) from error
            for picture in pictures:
                _copy_picture(preview, picture)
            card = Card(goal, temporary, kind, facts.family, name, activation_text, preferred_weight)
            for write_notes in target.notes:
                write_notes(card)
    return goal


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What goes wrong with files in or on the way to a folder, as a sentence."""
    try:
        yield
    except OSError as error:
        raise _write_error(error, folder) from error


def _check_root(target: Target) -> None:
    """Raise BadInput if the program is gone: its folders would be made anew where nobody looks."""
    if not target.root.is_dir():
        raise BadInput(
            say("The folder {path} is not there any more.", path=str(target.root)),
            say("If it was moved, choose it anew; if it is on another disk or a network drive, connect that."),
        )


def _destination(target: Target, source: Path, facts: ModelFacts) -> tuple[Kind, Path]:
    """What the file is, and the folder for it. Raises BadInput."""
    kind = KINDS.get(facts.kind)
    if source.is_dir():
        raise BadInput(
            say("{path} is a folder; these programs want one file.", path=str(source)),
            say("Convert it to a single file first (tools convert)."),
        )
    if kind is None:
        raise BadInput(say("{path} cannot be exported: {reason}", path=str(source), reason=facts.problem or facts.summary))
    folder = target.folder(kind)
    if folder is None:
        raise BadInput(
            say("{program} has no folder for this. {summary}", program=target.program, summary=facts.summary),
            say("Choose another program, or a plain folder."),
        )
    return kind, folder


def _files(target: Target, folder: Path, source: Path, name: str, preview: Path | None) -> list[Path]:
    """What will lie in a folder: the model, and its picture where there is one and the program shows it."""
    model = folder / f"{name}{source.suffix.lower()}"
    return [model, folder / f"{name}.preview.png"] if preview is not None and target.previews else [model]


def _same(source: Path, goal: Path) -> bool:
    return goal.exists() and os.path.samefile(source, goal)


def _check_conflict(files: list[Path], overwrite: bool) -> None:
    there = tuple(path for path in files if path.exists())
    if there and not overwrite:
        raise Conflict(there)


def _check_space(goal: Path, num_bytes: int) -> None:
    if free_bytes(goal.parent) < num_bytes + (1 << 20):
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


def _copy_picture(source: Path | None, goal: Path) -> None:
    """Copy a PNG with all that is written in it. Raises BadInput for another kind of file."""
    assert source is not None
    with source.open("rb") as handle:
        if handle.read(8) != b"\x89PNG\r\n\x1a\n":
            raise BadInput(say("The preview {path} is not a PNG picture.", path=str(source)))
    with atomic_path(goal) as temporary:
        shutil.copyfile(source, temporary)


def _copy_model(source: Path, goal: Path, kind: Kind, name: str, words: str, target: Target, final: Path) -> None:
    """Copy the weights byte by byte; a LoRA's header gets its own name, and the words that call it up."""
    if kind != "lora" or source.suffix.lower() not in (".safetensors", ".sft"):
        with goal.open("wb") as handle:
            for piece in _pieces(source, 0):
                handle.write(piece)
        return
    header = read_header(source)
    changes = {"ss_output_name": _alias(name, target, final)}
    if words and any(key.startswith("modelspec.") for key in header.metadata):
        changes["modelspec.trigger_phrase"] = words
    _copy_renamed(source, header, goal, changes)


def _alias(name: str, target: Target, goal: Path) -> str:
    """A name for the header that no other LoRA of the program has: where two have one, the WebUI hides both."""
    taken = {alias for path in _namesakes(target, goal) for alias in (path.stem, _output_name(path))}
    alias, number = name, 2
    while alias in taken:
        alias, number = f"{name}-{number}", number + 1
    return alias


def _namesakes(target: Target, goal: Path) -> Iterator[Path]:
    """The other LoRAs of a program: so many at most, and so long at most."""
    end, left = time.monotonic() + _NAMESAKE_SECONDS, _NAMESAKE_FILES
    own = os.path.realpath(goal)
    for folder in existing_first(target.folders["lora"]):
        for path in folder.rglob("*.safetensors"):
            left -= 1
            if left < 0 or time.monotonic() > end:
                return
            if os.path.realpath(path) != own:
                yield path


def _output_name(path: Path) -> str:
    try:
        return read_header(path).metadata.get("ss_output_name", "")
    except (OSError, NotSafetensors):
        return ""


def _copy_renamed(source: Path, header: Header, goal: Path, changes: Mapping[str, str]) -> None:
    """Copy a LoRA with some of its metadata changed.

    Tensors are copied byte by byte. The model hash is of the tensors and stays; the legacy hash moves with the header.
    """
    metadata = {**header.metadata, **changes}
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
