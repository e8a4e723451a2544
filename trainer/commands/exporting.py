"""`python -m trainer export FILE --to FOLDER`: a model file into the programs that draw with it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainer.errors import EXIT_DONE, BadInput
from trainer.export_targets import KINDS, Target, export_to_all, find_target, known_installs, refresh
from trainer.messages import Message, say
from trainer.models.header import inspect_file


def export(chosen: argparse.Namespace) -> int:
    """The command. Raises BadInput and whatever placing a file raises; a WebUI that does not answer is a note."""
    if chosen.list:
        _list(chosen.json)
        return EXIT_DONE
    if chosen.file is None or not chosen.to:
        what = say("A file and a folder are needed: FILE --to FOLDER.")
        raise BadInput(what, say("--list says which programs are found."))
    targets = [_target(folder) for folder in chosen.to]
    name = chosen.name or chosen.file.stem
    paths = export_to_all(
        targets, chosen.file, name, chosen.preview, chosen.words, chosen.weight, overwrite=chosen.overwrite
    )
    note = _refresh(chosen.refresh, chosen.file) if chosen.refresh else None
    if chosen.json:
        _print_json({"ok": True, "files": [str(path) for path in paths], "note": str(note) if note else None})
    else:
        _say("\n".join(str(path) for path in paths))
        if note is not None:
            _say(f"Note: {note}")
    return EXIT_DONE


def _target(folder: Path) -> Target:
    target = find_target(folder)
    if target is None:
        what = say("There is no folder {path}.", path=str(folder))
        raise BadInput(what, say("Choose the folder of the program that draws, or a plain folder."))
    return target


def _refresh(address: str, file: Path) -> Message | None:
    return refresh(address, KINDS[inspect_file(file).kind])


def _list(as_json: bool) -> None:
    installs = known_installs()
    if as_json:
        rows = [{"program": target.program, "root": str(target.root), "folders": _folders(target)} for target in installs]
        _print_json({"ok": True, "installs": rows})
    elif not installs:
        _say("None is found in the usual places; name its folder with --to.")
    else:
        _say("\n".join(f"{target.program}: {target.root}" for target in installs))


def _folders(target: Target) -> dict[str, list[str]]:
    return {kind: [str(place) for place in places] for kind, places in target.folders.items()}


def _say(text: str) -> None:
    print(text)  # noqa: T201


def _print_json(data: object) -> None:
    print(json.dumps(data, ensure_ascii=False))  # noqa: T201
