"""Makes `venv/` and keeps it right: Python, the PyTorch that fits the card, the packages of pyproject.toml.

`ensure` is called at every start. When the stamp in venv/ says that all is as pyproject.toml and the driver want it,
it returns within milliseconds and touches no network; otherwise it does what is missing and can be stopped at any time.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from installers import torch_install
from installers.__main__ import LOWEST, NEWEST
from installers.host import GIB, Host
from installers.lock import hold_lock
from installers.machine import driver_mark, look
from installers.pip import Outcome, Pip
from installers.place import refuse_place
from installers.stamp import Stamp, list_hash, requirement_lists
from installers.torch_choice import TORCH_VERSION, Choice, choose
from installers.words import say

# Measured: 2.0 GiB for the CPU build with the tests' packages; CUDA's libraries add about 5 GiB, and pip unpacks beside.
DISK_BYTES = {"cpu": 4 * GIB, "cuda": 12 * GIB}


class SetupFailed(Exception):
    """The environment could not be made; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the set-up works: the project's root and the two folders it makes there."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / "venv"

    @property
    def scratch(self) -> Path:
        return self.root / ".athanor-setup"

    @property
    def python(self) -> Path:
        return self.program("python")

    def program(self, name: str) -> Path:
        """A program of the environment, like "lint-imports"."""
        return self.venv / "Scripts" / f"{name}.exe" if os.name == "nt" else self.venv / "bin" / name


def ensure(host: Host, root: Path, wanted: Sequence[str] = ("app",), asked: str = "", repair: bool = False) -> Path:
    """Return the environment's Python, after making or mending the environment if it is not as it should be.

    `wanted` names sets of packages ("app", "test"); `asked` is a build of PyTorch chosen by hand, kept for later
    starts ("auto" takes it back); `repair` checks every package even if the stamp is fine. Raises SetupFailed.
    """
    places = Places(root)
    lists = requirement_lists(root / "pyproject.toml")
    asked = asked or host.environ.get("ATHANOR_TORCH", "")
    if not repair and is_current(host, places, lists, wanted, asked):
        return places.python
    complaint = refuse_place(root, host.system, host.environ)
    if complaint:
        raise SetupFailed(complaint)
    with locked(host, places):
        if repair or not is_current(host, places, lists, wanted, asked):
            make(host, places, lists, wanted, asked)
    return places.python


def is_current(host: Host, places: Places, lists: dict[str, list[str]], wanted: Sequence[str], asked: str) -> bool:
    """Is the environment what pyproject.toml, the driver and the user's choice want? Starts no process."""
    stamp = Stamp.read(places.venv)
    if stamp is None or not works(places) or stamp.torch_table != TORCH_VERSION or stamp.python != python_mark(places):
        return False
    if any(stamp.requirements.get(name) != list_hash(lists[name]) for name in wanted):
        return False
    if asked and asked != (stamp.asked or "auto"):
        return False
    if stamp.driver != driver_mark(host):
        return keeps_build(host, places, stamp)
    return not (stamp.retry and can_mend(host, stamp))


def keeps_build(host: Host, places: Places, stamp: Stamp) -> bool:
    """After a change of the driver: is the build still the right one? Remembers the new driver if so."""
    choice = choose(look(host), stamp.asked)
    if choice.blocked or stamp.retry or choice.tag != stamp.tag:
        return False
    dataclasses.replace(stamp, driver=driver_mark(host)).write(places.venv)
    return True


def can_mend(host: Host, stamp: Stamp) -> bool:
    """A CPU build stands on an NVIDIA machine: say so, and see whether the right one can be had now."""
    choice = choose(look(host), stamp.asked)
    if choice.cuda and host.reachable(torch_install.index_page(choice.tag, host.environ)):
        return True
    host.tell(say("ATTENTION: PyTorch is here without CUDA, so training runs on the processor. {why}", why=stamp.reason))
    return False


def works(places: Places) -> bool:
    """Can the environment's Python start, and is it one that we support? Looks at files only."""
    about = config(places.venv)
    numbers = about.get("version", about.get("version_info", "0")).split(".")
    version = tuple(int(number) for number in numbers[:2] if number.isdigit())
    return base_of(places).is_file() and places.python.is_file() and LOWEST <= version <= NEWEST


def base_of(places: Places) -> Path:
    """The Python that the environment was made from: on Linux its python is a link to it, on Windows it starts it."""
    if os.name != "nt":
        return places.python.resolve()
    return Path(config(places.venv).get("home", "")) / "python.exe"


def python_mark(places: Places) -> str:
    """A fingerprint of that Python: an update of the system may replace it by another version."""
    base = base_of(places)
    facts = base.stat()
    return f"{base} {facts.st_size} {int(facts.st_mtime)}"


def config(venv: Path) -> dict[str, str]:
    """pyvenv.cfg as a dictionary; empty if it cannot be read."""
    try:
        lines = (venv / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, found, value in (line.partition("=") for line in lines) if found}


def make(host: Host, places: Places, lists: dict[str, list[str]], wanted: Sequence[str], asked: str) -> None:
    """Do all that is missing, the stamp last. What an earlier, broken attempt left is used or replaced."""
    before = Stamp.read(places.venv)
    asked = asked or (before.asked if before else "")
    asked = "" if asked == "auto" else asked
    machine = look(host)
    choice = choose(machine, asked)
    host.tell(
        say("Setting up Athanor in {folder}. It can be stopped at any time and goes on where it was.", folder=places.venv)
    )
    for note in choice.notes:
        host.tell(note)
    check_disk(host, places, choice)
    make_venv(host, places)
    Stamp.remove(places.venv)
    forget_half_installed(places.venv)
    pip = Pip(host, places.python, places.scratch)
    pip.renew()
    done = torch_install.install(host, pip, places.venv, machine, choice, settled=before is not None)
    if done.complaint:
        raise SetupFailed(done.complaint)
    kept = [name for name in lists if name in wanted or (before and name in before.requirements and name != "cuda")]
    install_packages(pip, places, [line for name in kept for line in lists[name]], done.version)
    if choice.cuda and not done.retry:
        torch_install.add_xformers(host, pip, choice.tag, lists["cuda"], done.version)
    Stamp(
        torch_table=TORCH_VERSION,
        torch_installed=done.version,
        tag=choice.tag,
        driver=driver_mark(host),
        python=python_mark(places),
        requirements={name: list_hash(lists[name]) for name in kept},
        asked=asked,
        retry=done.retry,
        reason=done.reason,
    ).write(places.venv)
    host.tell(say("Athanor is set up."))


def check_disk(host: Host, places: Places, choice: Choice) -> None:
    """Refuse before gigabytes are downloaded for nothing; an environment that stands already needs little."""
    if torch_install.installed_torch(places.venv):
        return
    needed, free = DISK_BYTES["cuda" if choice.cuda else "cpu"], host.free_bytes(places.root)
    if free < needed:
        raise SetupFailed(
            say(
                "The disk of {folder} has {free} GB free, and the set-up needs {needed} GB. Make room or move Athanor "
                "to another disk.",
                folder=places.root,
                free=f"{free / GIB:.1f}",
                needed=needed // GIB,
            )
        )


def make_venv(host: Host, places: Places) -> None:
    """Make `venv/` if it is missing, or again if what stands there is a half-made or broken one."""
    if works(places) and host.read([places.python, "-m", "pip", "--version"], timeout_s=60)[0] == 0:
        return
    if places.venv.exists():
        clear(host, places.venv)
    base = base_python()
    if not has_ensurepip():
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupFailed(
            say(
                "This Python ({python}) cannot make environments: its venv part is missing. On Debian and Ubuntu: "
                "sudo apt install python{version}-venv",
                python=base,
                version=version,
            )
        )
    if host.run([base, "-m", "venv", places.venv], host.environ) != 0 or not works(places):
        raise SetupFailed(say("The environment in {folder} could not be made; the lines above say why.", folder=places.venv))


def forget_half_installed(venv: Path) -> None:
    """A package whose list of files is missing broke off while it was unpacked: let pip install it anew."""
    for about in (*venv.glob("lib/python3*/site-packages/*.dist-info"), *venv.glob("Lib/site-packages/*.dist-info")):
        if not (about / "RECORD").exists():
            shutil.rmtree(about)


def clear(host: Host, venv: Path) -> None:
    """Remove a broken environment; a folder that is no environment is not touched."""
    ours = (venv / "pyvenv.cfg").exists() or not any(venv.iterdir())
    if not ours:
        raise SetupFailed(
            say(
                "{folder} is there but is no Python environment. Rename it and start again; Athanor needs that name.",
                folder=venv,
            )
        )
    host.tell(say("The environment in {folder} is broken or half made; making it again.", folder=venv))
    remove(venv)


def discard(host: Host, places: Places) -> None:
    """Remove the environment, so that the next step makes it anew. Raises SetupFailed if a program holds it."""
    with locked(host, places):
        if (places.venv / "pyvenv.cfg").exists():
            remove(places.venv)


def remove(venv: Path) -> None:
    """Remove an environment's folder. Windows refuses while a program of it runs; what is left is removed next time."""
    Stamp.remove(venv)
    try:
        shutil.rmtree(venv)
    except OSError as problem:
        raise SetupFailed(
            say(
                "{folder} could not be removed ({reason}). Close Athanor's windows and runs, then start again.",
                folder=venv,
                reason=problem.strerror or problem,
            )
        ) from problem


def locked(host: Host, places: Places) -> AbstractContextManager[None]:
    """One set-up at a time; a second one says that it waits."""

    def tell() -> None:
        host.tell(say("Another window is setting up Athanor; waiting for it."))

    return hold_lock(places.scratch / "lock", tell)


def base_python() -> Path:
    """The Python that environments are made from: not the environment's own, which may be about to be replaced."""
    return Path(getattr(sys, "_base_executable", sys.executable))


def has_ensurepip() -> bool:
    """Debian ships Python without this part unless python3-venv is installed."""
    from importlib.util import find_spec

    return find_spec("ensurepip") is not None


def install_packages(pip: Pip, places: Places, lines: Sequence[str], torch_version: str) -> None:
    """Install the packages, never changing PyTorch. Raises SetupFailed with what to try."""
    wanted, limits = places.scratch / "requirements.txt", places.scratch / "constraints.txt"
    wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
    limits.write_text(f"torch=={torch_version}\n", encoding="utf-8")
    if pip.install(["-r", str(wanted), "-c", str(limits)]) is not Outcome.DONE:
        raise SetupFailed(download_broke(pip))


def download_broke(pip: Pip) -> str:
    return say(
        "Packages could not be downloaded or installed; the lines above and {log} say why. Start again: what is already "
        "here is not downloaded twice. Without a good connection, set a mirror first, for example: "
        "pip config set global.index-url ADDRESS",
        log=pip.log,
    )
