"""The command line: `python -m trainer RUN.toml`, and what else can be asked without a window.

Exit codes: 0 done, 1 failed, 2 bad input, 130 stopped on request. Torch is imported only when something trains.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from trainer.commands.answers import json_value
from trainer.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    AthanorError,
    BadInput,
    BadRunFile,
    Problem,
)
from trainer.messages import Message, say

SENDABLE = ("stop", "abort", "pause", "resume", "save", "sample")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Every error is a sentence on stderr, never a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _speak_utf8()
    if given[:1] == ["tools"]:
        from trainer.tools.commands import main as tools

        return tools(given[1:])
    parser = _parser()
    if given and _names_a_file(given[0]):
        given.insert(0, "train")
    chosen = parser.parse_args(given)
    try:
        return _COMMANDS[chosen.command](chosen)
    except AthanorError as error:
        _complain(error, getattr(chosen, "json", False))
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_STOPPED
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_FAILED
    except OSError as error:
        refused = _refused(error)
        _complain(refused, getattr(chosen, "json", False))
        return refused.exit_code


def _train(chosen: argparse.Namespace) -> int:
    """A new run: check, make its folder, freeze the run file, train."""
    from trainer.check import check_run
    from trainer.config.files import read_run, write_run
    from trainer.ipc.runfolder import create
    from trainer.paths import default_runs_folder

    run = read_run(chosen.run_file)
    problems = check_run(run).problems
    _tell_problems([problem for problem in problems if problem.severity == "warning"])
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise BadRunFile(errors)
    folder = create(Path(run.output.folder) if run.output.folder else default_runs_folder(), run.output.name)
    write_run(folder.run_file, run)
    return _work(folder.path, None, as_json=chosen.json)


def _resume(chosen: argparse.Namespace) -> int:
    return _work(chosen.folder, chosen.epochs, as_json=chosen.json)


def _work(path: Path, epochs: int | None, *, as_json: bool) -> int:
    from trainer import worker
    from trainer.ipc import events
    from trainer.ipc.journal import Record, encode
    from trainer.ipc.runfolder import open_folder
    from trainer.terminal import Screen, Terminal
    from trainer.training import train

    folder = open_folder(path)
    with worker.output_to_log(folder.log) as stream:
        terminal = Terminal(Screen(stream, is_live=stream.isatty() and not as_json))

        def as_line(record: Record) -> None:
            terminal.say(encode(record).decode())

        if not as_json:
            terminal.say(f"Run folder: {folder.path}")
        ending = worker.work(folder, train, epochs=epochs, listeners=[as_line if as_json else terminal])
        if not as_json:
            terminal.say(_last_words(ending, folder.path))
    if isinstance(ending, events.Failed) and not as_json:
        _tell(_sentence(ending.what, ending.todo))
        _tell(f"The log is {folder.log}")
    return worker.exit_code(ending)


def _check(chosen: argparse.Namespace) -> int:
    """Say everything that is wrong or doubtful with a run file, and how many steps it makes."""
    from trainer.check import Checked, check_run
    from trainer.config.files import absolute, read_values
    from trainer.config.problems import check_values

    run, problems = check_values(read_values(chosen.run_file))
    checked = check_run(absolute(run, chosen.run_file.resolve().parent)) if run is not None else Checked(())
    problems = (*problems, *checked.problems)
    has_errors = any(problem.severity == "error" for problem in problems)
    if chosen.json:
        plan = {"steps": checked.plan.total_steps, "epochs": checked.plan.num_epochs} if checked.plan else None
        _print_json({"ok": not has_errors, "problems": [json_value(problem) for problem in problems], "plan": plan})
    else:
        _tell_problems(problems)
        if checked.plan is not None and not has_errors:
            _say(str(checked.plan.sentence()))
        if not has_errors:
            _say("The run file is fine.")
    return EXIT_BAD_INPUT if has_errors else EXIT_DONE


def _inspect(chosen: argparse.Namespace) -> int:
    """Say what a model file is."""
    from trainer.commands.inspection import as_json, as_text
    from trainer.models.header import inspect_file

    facts = inspect_file(chosen.file)
    if chosen.json:
        _print_json(as_json(facts))
    else:
        _say(as_text(facts))
    return EXIT_BAD_INPUT if facts.kind in ("broken", "unknown", "missing", "pickle") else EXIT_DONE


def _probe(chosen: argparse.Namespace) -> int:
    """Say what a model's UNet seems to predict, where its file does not say it."""
    from trainer.probe import probe_file

    facts, guess = probe_file(chosen.file)
    if chosen.json:
        summary = guess.sentence()
        _print_json({
            "ok": True, "family": facts.family, "prediction": facts.prediction, "source": facts.prediction_source,
            "guess": guess.prediction, "shares": [guess.noisy, guess.clear],
            "summary": str(summary), "summary_message": summary.to_json(),
        })  # fmt: skip
    else:
        _say(str(guess.sentence()))
    return EXIT_DONE


def _estimate(chosen: argparse.Namespace) -> int:
    """Say how many steps a run makes, with the arithmetic."""
    from trainer.check import check_run
    from trainer.config.files import read_run

    checked = check_run(read_run(chosen.run_file))
    if checked.plan is None:
        raise BadRunFile(checked.errors)
    plan = checked.plan
    if chosen.json:
        numbers = ("total_steps", "num_epochs", "steps_per_epoch", "num_train", "num_class", "batch_size", "accumulation")
        _print_json({name: getattr(plan, name) for name in numbers})
    else:
        _say(str(plan.sentence()))
    return EXIT_DONE


def _send(chosen: argparse.Namespace) -> int:
    """Give the worker of a run a command."""
    from trainer.errors import BadInput
    from trainer.ipc import pipe
    from trainer.ipc.events import Command
    from trainer.ipc.runfolder import open_folder

    folder = open_folder(chosen.folder)
    name = "stop" if chosen.command == "stop" else chosen.word
    try:
        pipe.send(folder, Command(name))
    except OSError as error:
        if folder.is_alive():
            what = say("The worker of {folder} does not answer.", folder=str(folder.path))
            raise AthanorError(what, say("Try again in a moment.")) from error
        what = say("Nobody is at work in {folder}.", folder=str(folder.path))
        raise BadInput(what, say("Its run has ended; resume goes on with it.")) from error
    return EXIT_DONE


def _fetch(chosen: argparse.Namespace) -> int:
    from trainer.fetch import fetch

    return fetch(chosen)


def _export(chosen: argparse.Namespace) -> int:
    from trainer.commands.exporting import export

    return export(chosen)


def _demo(chosen: argparse.Namespace) -> int:
    from trainer.demo.command import main as demo

    return int(demo(chosen.rest))


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "train": _train,
    "resume": _resume,
    "check": _check,
    "inspect": _inspect,
    "probe": _probe,
    "estimate": _estimate,
    "stop": _send,
    "send": _send,
    "fetch": _fetch,
    "export": _export,
    "demo": _demo,
}


class _Parser(argparse.ArgumentParser):
    """argparse with one sentence instead of a usage block."""

    def error(self, message: str) -> NoReturn:
        _tell(f"{message[0].upper()}{message[1:]}. `{self.prog} --help` says what there is.")
        raise SystemExit(EXIT_BAD_INPUT)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m trainer", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="RUN.toml | COMMAND", parser_class=_Parser)
    train = commands.add_parser("train", help="train what a run file says (the word may be left out)")
    train.add_argument("run_file", type=Path, metavar="RUN.toml")
    resume = commands.add_parser("resume", help="go on with a run from its last snapshot")
    resume.add_argument("folder", type=Path)
    resume.add_argument("--epochs", type=_positive, help="a new length")
    check = commands.add_parser("check", help="say everything that is wrong with a run file")
    check.add_argument("run_file", type=Path, metavar="RUN.toml")
    inspect = commands.add_parser("inspect", help="say what a model file is")
    inspect.add_argument("file", type=Path)
    probe = commands.add_parser("probe", help="test whether a model predicts the noise or v")
    probe.add_argument("file", type=Path)
    estimate = commands.add_parser("estimate", help="say how many steps a run file makes")
    estimate.add_argument("run_file", type=Path, metavar="RUN.toml")
    stop = commands.add_parser("stop", help="save and end a run")
    stop.add_argument("folder", type=Path)
    send = commands.add_parser("send", help="give the worker of a run a command")
    send.add_argument("folder", type=Path)
    send.add_argument("word", choices=SENDABLE)
    fetch = commands.add_parser(
        "fetch",
        help="bring a model from the Hugging Face hub onto this disk",
        description="Goes on where it broke off. Environment: HF_ENDPOINT is a mirror's address, HF_TOKEN your token for "
        "models that are not public (else the one of `hf auth login` is taken), HF_HOME the folder of the cache.",
    )
    fetch.add_argument("id", metavar="OWNER/NAME[/FILE][@REVISION]")
    fetch.add_argument("--plan", action="store_true", help="only say how much it is")
    fetch.add_argument("--full", action="store_true", help="full precision where there is half precision too")
    export = commands.add_parser("export", help="place a model file in the programs that draw with it")
    _export_arguments(export)
    demo = commands.add_parser("demo", help="train the embedded example and show what it learnt", add_help=False)
    demo.add_argument("rest", nargs=argparse.REMAINDER)
    commands.add_parser("tools", help="convert, merge, extract, resize, … model files (has a --help of its own)")
    for command in (train, resume, check, inspect, probe, estimate, fetch, export):
        command.add_argument("--json", action="store_true", help="answer in JSON, for programs")
    return parser


def _export_arguments(export: argparse.ArgumentParser) -> None:
    export.description = "What the file is decides the folder: LoRA, checkpoint, embedding, VAE or hypernetwork."
    export.add_argument("file", type=Path, nargs="?")
    export.add_argument("--list", action="store_true", help="only say which programs are found on this machine")
    export.add_argument("--to", type=Path, action="append", default=[], metavar="FOLDER", help="a program's (repeatable)")
    export.add_argument("--name", help="of the new file; its own otherwise")
    export.add_argument("--preview", type=Path, metavar="PNG", help="a picture for its card")
    export.add_argument("--words", default="", help="what calls it up in a prompt")
    export.add_argument("--weight", type=float, default=0.0, help="how strongly it should be applied")
    export.add_argument("--overwrite", action="store_true", help="replace files of that name")
    export.add_argument("--refresh", metavar="ADDRESS", help="where the program answers: it is asked to show the file, now "
                        "and after each later copy, also a run's; off ends that")  # fmt: skip


def _names_a_file(word: str) -> bool:
    """Whether a first word is a run file rather than a command, or what was meant to be one."""
    if word in _COMMANDS or word.startswith("-"):
        return False
    return Path(word).name != word or Path(word).suffix != "" or Path(word).exists()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def _refused(error: OSError) -> AthanorError:
    """What the system has refused, as a sentence: a folder that can not be written, a disk that is full or has gone."""
    reason = error.strerror or type(error).__name__
    what = say("{file} can not be used ({reason}).", file=str(error.filename or "?"), reason=reason)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AthanorError(what, say("Make room on that disk, then start again."))
    return BadInput(what, say("Check that it is there, and that you may read and write it."))


def _complain(error: AthanorError, as_json: bool) -> None:
    problems = error.problems if isinstance(error, BadRunFile) else ()
    if as_json:
        answer: dict[str, Any] = {"ok": False, "what": str(error.what), "todo": str(error.todo) if error.todo else None}
        templates = {"what_message": error.what.to_json(), "todo_message": error.todo.to_json() if error.todo else None}
        _print_json(answer | templates | {"problems": [json_value(problem) for problem in problems]})
    elif problems:
        _tell_problems(problems)
    else:
        _tell(_sentence(error.what, error.todo))


def _tell_problems(problems: Sequence[Problem]) -> None:
    for problem in problems:
        _tell(f"{'Note' if problem.severity == 'warning' else 'Problem'}: {problem}")


def _last_words(ending: Any, path: Path) -> str:
    from trainer.ipc import events
    from trainer.terminal import duration

    if isinstance(ending, events.Failed):
        return "The run failed."
    how = {"finished": "Finished", "stopped": "Stopped and saved", "aborted": "Stopped without saving"}[ending.outcome]
    where = f" The LoRA is {path / ending.file}" if ending.file else ""
    return f"{how} after step {ending.step} ({duration(ending.seconds)}).{where}"


def _sentence(what: Message, todo: Message | None) -> str:
    return f"{what} {todo}" if todo else str(what)


def _speak_utf8() -> None:
    """Chinese names print everywhere, also where the console's code page is another."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")


def _say(text: str) -> None:
    print(text)  # noqa: T201


def _tell(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201


def _print_json(data: Any) -> None:
    print(json.dumps(data, ensure_ascii=False))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
