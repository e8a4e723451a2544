"""Installs the chosen build of PyTorch from wherever it can be had, and xformers where it works.

The rule that matters: on a machine with an NVIDIA card a build without CUDA is never installed silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from installers.addresses import torch_index
from installers.host import Host
from installers.machine import Machine
from installers.pip import Outcome, Pip
from installers.torch_choice import PYPI_BUILD, TORCH_VERSION, Choice
from installers.words import say

XFORMERS_PROBE = """
import torch, xformers.ops
q = torch.randn(1, 64, 8, 40, device="cuda", dtype=torch.float16)
xformers.ops.memory_efficient_attention(q, q, q)
torch.cuda.synchronize()
"""


@dataclass(frozen=True)
class Attempt:
    """One way to get PyTorch: what to ask pip for, an index to search besides the user's, and what to say before."""

    requirement: str
    index: str = ""
    note: str = ""


@dataclass(frozen=True)
class Installed:
    """What came of it. `complaint` is why nothing could be installed; `retry` marks a CPU build on an NVIDIA machine."""

    version: str = ""
    retry: bool = False
    reason: str = ""
    complaint: str = ""


def install(host: Host, pip: Pip, venv: Path, machine: Machine, choice: Choice, settled: bool = False) -> Installed:
    """Install the chosen build, unless it is there already.

    `settled`: the environment was finished before with what it holds, so a CPU build in it is known to the user.
    """
    if choice.blocked:
        return install_without_cuda(host, pip, venv, machine, choice.blocked, settled)
    version = fitting_torch(venv, choice)
    if version:
        return Installed(version)
    outcome = try_in_turn(host, pip, attempts(host, machine, choice))
    version = fitting_torch(venv, choice)
    if outcome is Outcome.DONE and version:
        return Installed(version)
    if outcome is Outcome.BROKEN or not choice.cuda:
        return Installed(complaint=no_torch(pip))
    return install_without_cuda(host, pip, venv, machine, unreachable(choice.tag, host.environ), settled)


def attempts(host: Host, machine: Machine, choice: Choice) -> list[Attempt]:
    """The ways to get a build, best first. A version with "+cpu" or "+cu130" can only be that build, whatever the source."""
    plain = f"torch=={TORCH_VERSION}"
    if not choice.tag:
        return [Attempt(plain)]
    exact, index = f"{plain}+{choice.tag}", torch_index(choice.tag, host.environ)
    ways = [Attempt(exact, index)] if host.reachable(index_page(choice.tag, host.environ)) else []
    told = say(
        "PyTorch's own index ({index}) cannot be reached or lacks this build: trying your pip's sources.", index=index
    )
    ways.append(Attempt(exact, note=told))
    on_pypi = PYPI_BUILD.get((machine.system, machine.arch), "cpu")
    if choice.tag in ("cpu", on_pypi):
        bigger = say("Taking the plain index's build; it brings CUDA's libraries, several GB that are not needed here.")
        ways.append(Attempt(plain, note=bigger if choice.tag == "cpu" != on_pypi else ""))
    return ways


def try_in_turn(host: Host, pip: Pip, ways: Sequence[Attempt]) -> Outcome:
    """Go on to the next way only where a source does not offer the build; a broken download ends it."""
    outcome = Outcome.NOT_OFFERED
    for way in ways:
        if way.note:
            host.tell(way.note)
        outcome = pip.install([way.requirement], way.index)
        if outcome is not Outcome.NOT_OFFERED:
            break
    return outcome


def install_without_cuda(
    host: Host, pip: Pip, venv: Path, machine: Machine, reason: str, settled: bool
) -> Installed:
    """Only if the user says yes: a build for the processor, marked to be looked at again at each start."""
    host.tell(reason)
    if settled and fitting_torch(venv, Choice("cpu")):
        host.tell(say("The PyTorch that is here already is kept until then; training runs on the processor."))
    elif not host.ask(
        say("Install PyTorch for the processor for now (training will be very slow), and look again at the next start?")
    ):
        way_out = say("To use the processor only, start once with: setup --torch cpu")
        return Installed(complaint=f"{reason} {way_out}")
    done = install(host, pip, venv, machine, Choice("cpu"))
    return done if done.complaint else Installed(done.version, retry=True, reason=reason)


def installed_torch(venv: Path) -> tuple[str, str | None] | None:
    """(version, CUDA version or None) of the environment's PyTorch, read from its version.py; None if there is none."""
    for folder in (*venv.glob("lib/python3*/site-packages/torch"), venv / "Lib" / "site-packages" / "torch"):
        try:
            text = (folder / "version.py").read_text(encoding="utf-8")
        except OSError:
            continue
        version = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
        cuda = re.search(r"^cuda(?::[^=]*)?\s*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
        if version:
            return version[1], cuda[1] if cuda else None
    return None


def fitting_torch(venv: Path, choice: Choice) -> str:
    """The version of the environment's PyTorch if it serves for the chosen build, else "".

    A CUDA build also serves as a CPU one; among CUDA builds the major number decides, as drivers do.
    """
    found = installed_torch(venv)
    if found is None or found[0].partition("+")[0] != TORCH_VERSION:
        return ""
    major = (found[1] or "").partition(".")[0]
    return found[0] if not choice.cuda or choice.tag[2:4] == major else ""


def index_page(tag: str, environ: Mapping[str, str]) -> str:
    """The page of an index that lists PyTorch's builds: what is asked for to see whether the index answers."""
    return f"{torch_index(tag, environ)}/torch/"


def unreachable(tag: str, environ: Mapping[str, str]) -> str:
    return say(
        "PyTorch for this NVIDIA card ({tag}) is not to be had: {index} cannot be reached, and your pip's sources do not "
        "offer it. Try later, or give a mirror of PyTorch's index in ATHANOR_TORCH_INDEX (an address to which /{tag} is "
        "added).",
        tag=tag,
        index=torch_index(tag, environ),
    )


def no_torch(pip: Pip) -> str:
    return say(
        "PyTorch {version} could not be downloaded or installed; the lines above and {log} say why. Start again: a "
        "download that broke goes on. No source offering it usually means no connection, or a Python that is too new.",
        version=TORCH_VERSION,
        log=pip.log,
    )


def add_xformers(host: Host, pip: Pip, tag: str, lines: Sequence[str], torch_version: str) -> None:
    """Install xformers and keep it only if a call on the card succeeds; training does without it just as well."""
    limits = pip.scratch / "constraints.txt"
    limits.write_text(f"torch=={torch_version}\n", encoding="utf-8")
    arguments = [*lines, "-c", str(limits), "--only-binary", ":all:"]
    if pip.install(arguments, torch_index(tag, host.environ)) is not Outcome.DONE:
        host.tell(say("xformers is not to be had for this PyTorch; PyTorch's own attention is used, which is as good."))
        return
    if host.read([pip.python, "-c", XFORMERS_PROBE], timeout_s=180)[0] != 0:
        host.tell(say("xformers does not work on this card and is taken out again; PyTorch's own attention is used."))
        pip.remove("xformers")
