"""`python -m trainer tools NAME …`: options from the tools' descriptions, progress, and one JSON object a line for programs.

With --json each line has an "event": "progress" (`done`, `total`, `text`), at the end one of "result" (`summary`,
`outputs`, `notes`, `facts`) and "failed" (`what`, `todo`, `problems`, `stopped`). Sentences are given twice: as text, and
under `…_message` as template and values for translation. See docs/tools.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from pydantic.fields import FieldInfo

from trainer.config.fields import Info, Section, item_section, plain_type, settings_of
from trainer.config.options import option_help, option_name
from trainer.config.problems import read_section
from trainer.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_STOPPED, AthanorError, BadInput, Problem, Stopped
from trainer.messages import Message, say
from trainer.stopping import stop_asked
from trainer.terminal import REDRAW_S, Screen, bar, write_quietly
from trainer.tools.catalog import TOOLS, Tool
from trainer.tools.watch import Result, Watch

EPILOGUE = (
    "Exit codes: 0 done, 1 failed, 2 bad input, 130 stopped. Whatever happens, a file is written whole or not at all."
)


def main(arguments: Sequence[str]) -> int:
    """Run a tool and return its exit code. Every error is a sentence (or an event), never a traceback."""
    chosen = _parser().parse_args(arguments)
    tool = TOOLS[chosen.tool]
    voice: _Voice = _JsonVoice() if chosen.json else _TerminalVoice()
    try:
        settings = _settings(tool, chosen)
        with stop_asked(chosen.stop_file) as cancelled:
            result = tool.run(settings, Watch(voice.progress, cancelled))
    except AthanorError as error:
        voice.failed(error)
        return error.exit_code
    except KeyboardInterrupt:  # a second Ctrl+C
        voice.failed(Stopped(say("Stopped. Nothing was written.")))
        return EXIT_STOPPED
    voice.result(result)
    return EXIT_DONE


# --- options ---


class BadOptions(BadInput):
    """Options that cannot be used: all problems, not the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        lines = "\n".join(f"- {problem}" for problem in problems)
        super().__init__(say("These options cannot be used:\n{lines}", lines=lines))
        self.problems = tuple(problems)


class _Parser(argparse.ArgumentParser):
    """argparse with one sentence instead of a usage block."""

    def error(self, message: str) -> NoReturn:
        _tell(f"{message[0].upper()}{message[1:]}. `{self.prog} --help` says what there is.")
        raise SystemExit(EXIT_BAD_INPUT)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("python -m trainer tools", description="Tools for model files.", epilog=EPILOGUE)
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL", parser_class=_Parser)
    for tool in TOOLS.values():
        one = tools.add_parser(tool.name, help=str(tool.summary), description=str(tool.summary), epilog=EPILOGUE)
        for key, field, info in settings_of(tool.settings):
            _add(one, tool, key, field, info)
        one.add_argument("--json", action="store_true", help="one event a line, as JSON, for programs")
        one.add_argument("--stop-file", type=Path, metavar="FILE", help="stop as soon as this file exists")
    return parser


def _add(parser: argparse.ArgumentParser, tool: Tool, key: str, field: FieldInfo, info: Info) -> None:
    """Add one setting: by its place if the tool says so, else as an option."""
    kind, item = plain_type(field), item_section(field)
    help = _help(field, info)
    if key in tool.given:
        if kind is tuple:
            parser.add_argument(key, nargs="+", metavar=key.upper(), help=help)
        else:
            parser.add_argument(key, nargs=None if key in tool.needed else "?", metavar=key.upper(), help=help)
    elif item is not None:
        name = option_name(key.removesuffix("s"))
        words = f"{help} Again for each one: {list_option(item)}"
        parser.add_argument(name, dest=key, nargs="+", action="append", metavar="FILE", help=option_help(words))
    elif kind is bool:
        parser.add_argument(option_name(key), action="store_true", default=None, help=help)
    elif kind is tuple:
        parser.add_argument(option_name(key), nargs="+", action="extend", metavar=key.upper(), help=help)
    else:
        names = ["-o", option_name(key)] if key == "output" else [option_name(key)]
        choices = [choice.value for choice in info.choices] or None
        number = kind if kind in (int, float) else str
        word = None if choices else value_name(kind, info)
        parser.add_argument(*names, dest=key, type=number, choices=choices, metavar=word, help=help)


def value_name(kind: type, info: Info) -> str:
    """What stands for a setting's value in help."""
    if info.choices:
        return "{" + ",".join(str(choice.value) for choice in info.choices) + "}"
    return "FILE" if info.widget == "file" else kind.__name__.upper()


def list_option(item: type[Section]) -> str:
    """What one item of a list is written as: `FILE [WEIGHT] [unet=…]`."""
    _, second, *later = [key for key, _, _ in settings_of(item)]
    return f"FILE [{second.upper()}] [{'=… '.join(later)}=…]"


def _help(field: FieldInfo, info: Info) -> str:
    words = [info.help]
    words += [f"{choice.value}: {choice.label}. {choice.help}".rstrip() for choice in info.choices]
    usual = field.get_default()
    if usual not in ("", (), None, False):
        words.append(f"({usual})")
    return option_help(" ".join(words))


def _settings(tool: Tool, chosen: argparse.Namespace) -> Any:
    """The tool's settings from the options that were given. Raises BadOptions with everything wrong in them."""
    given: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, field, _ in settings_of(tool.settings):
        value = getattr(chosen, key)
        if value is None:
            continue
        item = item_section(field)
        given[key] = [_entry(item, words) for words in value] if item is not None else value
    settings, found = read_section(tool.settings, given, tool.name)
    problems += found
    if not problems:
        problems += tool.missing(settings)
    if problems:
        raise BadOptions(problems)
    return settings


def _entry(item: type[Section], words: Sequence[str]) -> dict[str, Any]:
    """`FILE [NUMBER] [key=NUMBER …]` as a table of an item's settings. Raises BadInput."""
    keys = [key for key, _, _ in settings_of(item)]
    entry: dict[str, Any] = {keys[0]: words[0]}
    for place, word in enumerate(words[1:]):
        key, sign, number = word.rpartition("=")
        if not sign and place:
            raise BadInput(say("{word} is not of the form key=value.", word=word))
        entry[key if sign else keys[1]] = _number(number)
    return entry


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(say("{text} is not a number.", text=text)) from None


# --- answers ---


class _Voice(Protocol):
    """How the command answers."""

    def progress(self, done: int, total: int, text: Message) -> None: ...
    def failed(self, error: AthanorError) -> None: ...
    def result(self, result: Result) -> None: ...


class _TerminalVoice:
    """Sentences, and a line of progress that renews itself; on a stream that is no terminal, no progress."""

    def __init__(self) -> None:
        self._screen = Screen(sys.stdout, is_live=sys.stdout.isatty())
        self._drawn = 0.0

    def progress(self, done: int, total: int, text: Message) -> None:
        now = time.monotonic()
        if self._screen.is_live and (now - self._drawn >= REDRAW_S or done == total):
            self._drawn = now
            self._screen.renew(f"{bar(done, total)}  {text}", final=done == total)

    def failed(self, error: AthanorError) -> None:
        _tell(f"{error.what} {error.todo}" if error.todo else str(error.what))

    def result(self, result: Result) -> None:
        self._screen.say(str(result.summary))
        for note in result.notes:
            _tell(f"Note: {note}")


class _JsonVoice:
    """One JSON object a line."""

    def __init__(self) -> None:
        self._written, self._text = 0.0, ""

    def progress(self, done: int, total: int, text: Message) -> None:
        now = time.monotonic()
        if now - self._written >= REDRAW_S or done == total or str(text) != self._text:
            self._written, self._text = now, str(text)
            _print({"event": "progress", "done": done, "total": total, **_message("text", text)})

    def failed(self, error: AthanorError) -> None:
        problems = error.problems if isinstance(error, BadOptions) else ()
        _print(
            {
                "event": "failed",
                "stopped": isinstance(error, Stopped),
                **_message("what", error.what),
                **_message("todo", error.todo),
                "problems": [{"place": part.place, **_message("what", part.what)} for part in problems],
            }
        )

    def result(self, result: Result) -> None:
        _print(
            {
                "event": "result",
                **_message("summary", result.summary),
                "outputs": [str(path) for path in result.outputs],
                "notes": [_message("text", note) for note in result.notes],
                "facts": dict(result.facts),
            }
        )


def _message(name: str, message: Message | None) -> dict[str, Any]:
    if message is None:
        return {name: None}
    return {name: str(message), f"{name}_message": message.to_json()}


def _print(data: dict[str, Any]) -> None:
    write_quietly(sys.stdout, json.dumps(data, ensure_ascii=False) + "\n")


def _tell(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201
