"""The launcher's commands: make sure of the environment, then hand over to the program in it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from installers.environment import Places, SetupFailed, discard, ensure
from installers.host import Host
from installers.pip import clean
from installers.words import say

ROOT = Path(__file__).resolve().parent.parent
FAILED, BAD_INPUT = 1, 2
HELP = """Athanor
  gui.sh                 open the window
  gui.sh demo            train the embedded example and show what it learnt (no window needed)
  gui.sh train RUN.toml  train from a run file
  gui.sh test            run all checks and tests (arguments go to pytest)
  gui.sh doctor          say what is wrong with this computer or installation (--json for programs)
  gui.sh setup           check and mend the environment (--fresh makes it anew;
                         --torch auto|cpu|cu126|cu130 chooses PyTorch's build by hand)
  gui.sh captioners ...  taggers and captioners
  gui.sh resume|check|inspect ...   and whatever else "gui.sh trainer --help" lists
On Windows: gui.bat instead of gui.sh."""


def main(arguments: Sequence[str], host: Host | None = None, root: Path = ROOT) -> int:
    """Run one launcher command and return its exit code. Sentences instead of tracebacks."""
    host = host or Host()
    tidy_console()
    try:
        return dispatch(host, root, list(arguments))
    except SetupFailed as problem:
        host.tell(str(problem))
        return FAILED
    except BrokenPipeError:  # the reader of our output (head, a closed console) has gone
        sys.stdout = None
        return FAILED
    except OSError as problem:
        host.tell(
            say(
                "{file} could not be read or written ({reason}). Check its rights and the free space, then start again.",
                file=problem.filename or root,
                reason=problem.strerror or type(problem).__name__,
            )
        )
        return FAILED
    except KeyboardInterrupt:
        host.tell(say("Stopped. The next start goes on where this one was."))
        return 130


def tidy_console() -> None:
    """Never fail on a character that the console cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def dispatch(host: Host, root: Path, arguments: list[str]) -> int:
    """Tell the commands apart; what is not the launcher's own goes to `python -m trainer`."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command in {"help", "-h", "--help"}:
        host.tell(HELP)
        return 0
    if command == "doctor":
        return doctor(host, root, rest)
    if command == "setup":
        return setup(host, root, rest)
    if command == "test":
        return run_tests(host, root, rest)
    python = ensure(host, root)
    module = {"": "app", "captioners": "captioners"}.get(command, "trainer")
    passed = rest if command in {"", "captioners", "train", "trainer"} else arguments
    return hand_over(host, root, [str(python), "-P", "-m", module, *passed])


def doctor(host: Host, root: Path, rest: list[str]) -> int:
    if [word for word in rest if word != "--json"]:
        host.tell(say("doctor takes only --json."))
        return BAD_INPUT
    from installers.doctor import run_doctor

    return run_doctor(host, root, as_json="--json" in rest)


def setup(host: Host, root: Path, rest: list[str]) -> int:
    """Check and mend the environment without starting anything in it."""
    fresh, asked, words = False, "", iter(rest)
    for word in words:
        if word == "--fresh":
            fresh = True
        elif word == "--torch":
            asked = next(words, "")
            if asked not in {"auto", "cpu"} and not (asked.startswith("cu") and asked[2:].isdigit()):
                host.tell(say("--torch takes auto, cpu or a CUDA build like cu130, not “{word}”.", word=asked))
                return BAD_INPUT
        else:
            host.tell(say("setup knows --fresh and --torch, not “{word}”.", word=word))
            return BAD_INPUT
    if fresh:
        discard(host, Places(root))
    ensure(host, root, asked=asked, repair=True)
    return 0


def run_tests(host: Host, root: Path, rest: list[str]) -> int:
    """ruff, import-linter, mypy, then pytest, whose last line ends the output unless an earlier check failed."""
    python = ensure(host, root, wanted=("app", "test"))
    checks = {
        "ruff": [python, "-P", "-m", "ruff", "check", "."],
        "import-linter": [Places(root).program("lint-imports")],
        "mypy": [python, "-P", "-m", "mypy"],
        "pytest": [python, "-P", "-m", "pytest", "-n", "2", "--dist", "worksteal", *rest],
    }
    failed = []
    for name, command in checks.items():
        host.tell(f"== {name}")
        if host.run(command, test_environ(host, root), root) != 0:
            failed.append(name)
    if set(failed) - {"pytest"}:
        host.tell(say("Failed: {names}", names=", ".join(failed)))
    return FAILED if failed else 0


def test_environ(host: Host, root: Path) -> dict[str, str]:
    """The program's environment; two test processes share the cores, and windows stay invisible without a display."""
    environ = {"OMP_NUM_THREADS": "1", **program_environ(host, root)}
    if host.system == "Linux" and not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    return environ


def program_environ(host: Host, root: Path) -> dict[str, str]:
    """The program is found from any folder, and nothing in the user's current folder can take a module's name (-P)."""
    return {**clean(host.environ), "PYTHONPATH": str(root), "PYTHONUTF8": "1"}


def hand_over(host: Host, root: Path, command: list[str]) -> int:
    """Become the program, in the folder that the user called from."""
    caller = host.environ.get("ATHANOR_CALLER_FOLDER")  # gui.bat had to leave it
    folder = Path(caller) if caller and Path(caller).is_dir() else None
    return host.become(command, program_environ(host, root), folder)
