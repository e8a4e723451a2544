"""The command line: `python -m captioners wd14 --model FOLDER PICTURES…`. Exit codes 0, 1, 2 and 130 as the trainer's.

Its options are the settings of the captioner and of writing; see docs/captioners.md.
"""

from __future__ import annotations

import argparse
import io
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from captioners.base import caption_pictures, find_pictures
from captioners.catalog import Card, WriteSettings, cards
from captioners.common.events import JsonLines, Reporter, Terminal
from captioners.common.scores import default_path
from trainer.config.fields import Info, Section, plain_type, settings_of
from trainer.config.options import option_help, option_name
from trainer.config.problems import read_section
from trainer.data.captions import split_tags
from trainer.errors import EXIT_DONE, EXIT_STOPPED, AthanorError, BadInput, RunFailed
from trainer.ipc.events import Failed
from trainer.messages import say
from trainer.stopping import stop_asked


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Every error is a sentence (an event with --json), never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    chosen = _parser().parse_args(arguments)
    report: Reporter = JsonLines(sys.stdout) if chosen.json else Terminal(sys.stdout, chosen.dry_run)
    try:
        with stop_asked(chosen.stop_file) as should_stop:
            return _caption(cards()[chosen.captioner], chosen, report, should_stop)
    except AthanorError as error:
        return _fail(error, report)
    except sqlite3.Error as error:
        reason = str(error) or type(error).__name__
        what = say("The stored scores cannot be used ({reason}).", reason=reason)
        todo = say("If this stays so, delete {file}: it is made anew.", file=str(default_path()))
        return _fail(RunFailed(what, todo), report)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        what = say("{file} can not be used ({reason}).", file=str(error.filename or "?"), reason=reason)
        return _fail(RunFailed(what, say("Check that it is there, and that you may read and write it.")), report)
    except KeyboardInterrupt:  # a second Ctrl+C
        return EXIT_STOPPED


def _caption(card: Card, chosen: argparse.Namespace, report: Reporter, should_stop: Callable[[], bool]) -> int:
    settings = _section(card.settings, chosen)
    writing = _section(WriteSettings, chosen)
    folder = chosen.model.parent if chosen.model.is_file() else chosen.model
    card.check(folder)
    pictures = find_pictures(chosen.pictures)
    captioner = card.load(folder, settings, chosen.device)
    finished = caption_pictures(
        captioner, pictures, writing, name=card.name, model=folder, report=report, should_stop=should_stop
    )
    return EXIT_STOPPED if finished.stopped else EXIT_DONE


def _section(kind: type[Section], chosen: argparse.Namespace) -> Any:
    """A section from the options that were given; raises BadInput with everything wrong in it."""
    given = {key: getattr(chosen, key) for key, _, _ in settings_of(kind) if getattr(chosen, key) is not None}
    section, problems = read_section(kind, given, "options")
    if problems:
        raise BadInput(say("These options cannot be used:\n{lines}", lines="\n".join(f"- {part}" for part in problems)))
    return section


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m captioners", description="Writes captions beside pictures.")
    kinds = parser.add_subparsers(dest="captioner", required=True, metavar="CAPTIONER")
    for card in cards().values():
        one = kinds.add_parser(card.name, help=str(card.title), description=str(card.summary))
        one.add_argument("pictures", nargs="+", type=Path, metavar="PICTURES", help="pictures, or folders of pictures")
        one.add_argument("--model", type=Path, required=True, metavar="FOLDER", help=f"holds {', '.join(card.files)}")
        for section in (card.settings, WriteSettings):
            _add_options(one, section)
        one.add_argument("--device", choices=("auto", "gpu", "cpu"), default="auto", help="what computes")
        one.add_argument("--json", action="store_true", help="one event a line, as JSON")
        one.add_argument("--stop-file", type=Path, metavar="FILE", help="stop as soon as this file exists")
    return parser


def _add_options(parser: argparse.ArgumentParser, section: type[Section]) -> None:
    for key, field, info in settings_of(section):
        name, kind = option_name(key), plain_type(field)
        usual = field.get_default()
        if kind is bool:
            words = f"{info.help} (off unless given)" if not usual else f"{info.help} (on)"
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=None, help=option_help(words))
        elif kind is tuple:
            words = f"{info.help} Separated by commas."
            parser.add_argument(name, type=_tags, metavar="TAGS", default=None, help=option_help(words))
        else:
            parser.add_argument(
                name,
                type=kind if kind in (int, float) else str,
                choices=_values(info),
                default=None,
                metavar=None if info.choices else kind.__name__.upper(),
                help=option_help(f"{info.help} ({usual})"),
            )


def _values(info: Info) -> list[str | int] | None:
    return [choice.value for choice in info.choices] or None


def _tags(text: str) -> tuple[str, ...]:
    return tuple(split_tags(text))


def _fail(error: AthanorError, report: Reporter) -> int:
    report(Failed(error.what, error.todo, error.exit_code))
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
