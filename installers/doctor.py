"""`doctor`: looks at everything that a training needs and says in plain words what is wrong and what to do."""

from __future__ import annotations

import ctypes.util
import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from installers.addresses import addresses
from installers.environment import Places, config, works
from installers.host import GIB, Host
from installers.machine import Machine, look, total_memory, windows_memory
from installers.place import refuse_place
from installers.stamp import Stamp, list_hash, requirement_lists
from installers.torch_choice import Choice, choose
from installers.words import say

FINE, DOUBTFUL, WRONG = "fine", "doubtful", "wrong"
DISK_ADVISED, DISK_NEEDED = 60 * GIB, 8 * GIB
MEMORY_ADVISED, MEMORY_NEEDED = 16 * GIB, 8 * GIB
EIGHT_BIT_FROM, BF16_FROM = (7, 5), (8, 0)  # compute capabilities


@dataclass(frozen=True)
class Finding:
    """One line of the report. `state` is "fine", "doubtful" (works, worse) or "wrong" (something will not work)."""

    name: str
    state: str
    text: str
    todo: str = ""


def run_doctor(host: Host, root: Path, as_json: bool) -> int:
    """Print the report; return 0, or 1 if something will stop Athanor from working."""
    findings = list(examine(host, root))
    healthy = all(finding.state != WRONG for finding in findings)
    if as_json:
        report = {"format": 1, "ok": healthy, "findings": [asdict(finding) for finding in findings]}
        host.tell(json.dumps(report, ensure_ascii=False, indent=1))
        return 0 if healthy else 1
    signs = {FINE: "ok", DOUBTFUL: " !", WRONG: "XX"}
    for finding in findings:
        host.tell(f"[{signs[finding.state]}] {finding.name}: {finding.text}")
        if finding.todo:
            host.tell(f"       -> {finding.todo}")
    host.tell(conclusion(findings))
    return 0 if healthy else 1


def conclusion(findings: list[Finding]) -> str:
    """The last line of the report."""
    states = {finding.state for finding in findings}
    if WRONG in states:
        return say("What is marked [XX] has to be mended first.")
    if DOUBTFUL in states:
        return say("Nothing here stops Athanor; what is marked [ !] is worth reading.")
    return say("All that a training needs is here.")


def examine(host: Host, root: Path) -> Iterator[Finding]:
    """All findings, in the order in which a user would mend them."""
    machine = look(host)
    choice = choose(machine)
    places = Places(root)
    facts = probe(host, places) if works(places) else {}
    yield check_place(host, root)
    yield check_python()
    yield check_environment(places)
    yield check_disk(host, root)
    yield check_memory(total_memory())
    if os.name == "nt":
        yield check_page_file(*windows_memory())
        yield check_visual_c(Path(host.environ.get("SystemRoot", r"C:\Windows")) / "System32")
    yield check_card(machine, choice)
    if facts:
        yield check_torch(facts["torch"], choice)
        yield check_bitsandbytes(facts["bitsandbytes"])
        yield check_xformers(facts["xformers"], choice)
        yield check_window(facts["window"], host.system)
    yield check_fonts(host)
    yield check_display(host)


def probe(host: Host, places: Places) -> dict[str, Any]:
    """What probe.py says inside the environment; its parts carry "error" where it could not even start."""
    code, text = host.read([places.python, "-P", str(Path(__file__).with_name("probe.py"))], timeout_s=180)
    try:
        return json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        error = {"error": (text.strip().splitlines() or [f"exit code {code}"])[-1][:300]}
        return {name: error for name in ("torch", "bitsandbytes", "xformers", "window")}


def check_place(host: Host, root: Path) -> Finding:
    complaint = refuse_place(root, host.system, host.environ)
    return Finding(say("Folder"), WRONG, complaint) if complaint else Finding(say("Folder"), FINE, str(root))


def check_python() -> Finding:
    return Finding(say("Python"), FINE, f"{platform.python_version()} ({sys.executable})")


def check_environment(places: Places) -> Finding:
    """Is venv/ there, whole, and up to date with pyproject.toml?"""
    name, stamp = say("Environment"), Stamp.read(places.venv)
    if not places.venv.exists():
        return Finding(name, DOUBTFUL, say("not made yet"), say("The first start makes it; that takes a few minutes."))
    if not works(places):
        return Finding(name, DOUBTFUL, say("broken: its Python does not start"), say("The next start makes it again."))
    if stamp is None:
        unfinished = say("not finished, or not made by this launcher")
        return Finding(name, DOUBTFUL, unfinished, say("The next start goes on with it."))
    if stamp.requirements.get("app") != list_hash(requirement_lists(places.root / "pyproject.toml")["app"]):
        return Finding(name, DOUBTFUL, say("older than pyproject.toml"), say("The next start brings it up to date."))
    return Finding(name, FINE, f"{places.venv} (Python {config(places.venv).get('version', '?')})")


def check_disk(host: Host, root: Path) -> Finding:
    free = host.free_bytes(root)
    text = say("{free} GB free", free=f"{free / GIB:.0f}")
    if free < DISK_NEEDED and not (root / "venv").exists():
        return Finding(say("Disk"), WRONG, text, say("Athanor itself needs 8 GB. Make room or move it to another disk."))
    if free < DISK_ADVISED:
        advice = say("60 GB are advised for models, pictures and caches.")
        return Finding(say("Disk"), DOUBTFUL, text, advice)
    return Finding(say("Disk"), FINE, text)


def check_memory(size: int | None) -> Finding:
    if size is None:
        return Finding(say("Memory"), DOUBTFUL, say("the system does not say how much there is"))
    text = say("{size} GB", size=f"{size / GIB:.0f}")
    if size < MEMORY_NEEDED:
        return Finding(say("Memory"), DOUBTFUL, text, say("A full-size model will hardly load; 16 GB are advised."))
    if size < MEMORY_ADVISED * 0.95:  # what a 16 GB computer reports is a little less
        return Finding(say("Memory"), DOUBTFUL, text, say("16 GB are advised; close other programs while training."))
    return Finding(say("Memory"), FINE, text)


def check_page_file(memory: int, commit: int) -> Finding:
    """Windows refuses memory (error 1455) when RAM and page file together are promised away."""
    text = say("{size} GB of memory and page file together", size=f"{commit / GIB:.0f}")
    if commit < memory + 8 * GIB:
        advice = say(
            "Loading a model may end with error 1455. Let Windows manage the page file's size (System > About > Advanced "
            "system settings > Performance > Advanced > Virtual memory)."
        )
        return Finding(say("Page file"), DOUBTFUL, text, advice)
    return Finding(say("Page file"), FINE, text)


def check_visual_c(system_folder: Path) -> Finding:
    """PyTorch and onnxruntime need Microsoft's runtime, which a bare Windows lacks."""
    name = say("Visual C++ runtime")
    if all((system_folder / file).is_file() for file in ("msvcp140.dll", "vcruntime140_1.dll")):
        return Finding(name, FINE, say("here"))
    return Finding(name, WRONG, say("missing"), say("Install it from {page}", page=addresses()["visual_c_page"]))


def check_card(machine: Machine, choice: Choice) -> Finding:
    """The card and its driver, and what will be missing with an older one."""
    name = say("Card and driver")
    if choice.blocked:
        return Finding(name, WRONG, choice.blocked)
    if not choice.cuda:
        return Finding(name, DOUBTFUL, " ".join(choice.notes))
    cards = ", ".join(f"{card.name} ({(card.memory_mib or 0) / 1024:.0f} GB)" for card in machine.nvidia)
    text = say("{cards}, driver {driver}, PyTorch build {build}", cards=cards, driver=machine.driver, build=choice.tag)
    lowest = min((card.compute for card in machine.nvidia if card.compute), default=BF16_FROM)
    if lowest < EIGHT_BIT_FROM:
        advice = say("This card has no 8-bit optimisers and no bf16: take AdamW and fp16.")
        return Finding(name, DOUBTFUL, " ".join((text, *choice.notes)), advice)
    if lowest < BF16_FROM:
        return Finding(name, FINE, " ".join((text, *choice.notes)), say("This card has no bf16: take fp16."))
    return Finding(name, DOUBTFUL if choice.notes else FINE, " ".join((text, *choice.notes)))


def check_torch(facts: dict[str, Any], choice: Choice) -> Finding:
    mend = say("Mend it with: setup --fresh (what pip has kept is not downloaded twice).")
    if "error" in facts:
        return Finding("PyTorch", WRONG, facts["error"], mend)
    text = f"{facts['version']}, CUDA {facts['cuda'] or '-'}"
    if any(not card["right"] for card in facts["cards"]):
        return Finding("PyTorch", WRONG, text, say("The card calculates wrongly: update its driver; check overclocking."))
    if choice.cuda and not facts["cards"]:
        todo = mend if not facts["cuda"] else say("PyTorch sees no card: restart the computer, then update the driver.")
        return Finding("PyTorch", WRONG, say("{text}: it does not see the card", text=text), todo)
    for card in facts["cards"]:
        text += f"; {card['name']}: {card['free'] / GIB:.1f} / {card['total'] / GIB:.1f} GB"
        if card["free"] < 0.75 * card["total"]:
            return Finding("PyTorch", DOUBTFUL, text, say("Another program holds the card's memory: close it (a WebUI?)."))
    return Finding("PyTorch", FINE, text)


def check_bitsandbytes(facts: dict[str, Any]) -> Finding:
    if "error" in facts or not facts["moved"]:
        text = facts.get("error") or say("an 8-bit step did nothing")
        return Finding("bitsandbytes", DOUBTFUL, text, say("8-bit optimisers will not work; all others do."))
    return Finding("bitsandbytes", FINE, say("{version}, 8-bit AdamW works on {device}", **without(facts, "moved")))


def check_xformers(facts: dict[str, Any], choice: Choice) -> Finding:
    """Never wrong: PyTorch's own attention is as good."""
    if "error" not in facts:
        return Finding("xformers", FINE, facts["version"])
    text = say("not used: PyTorch's own attention is as good")
    return Finding("xformers", FINE, f"{text} ({facts['error']})" if choice.cuda else text)


def check_window(facts: dict[str, Any], system: str) -> Finding:
    if "error" in facts:
        todo = say("Mend it with: setup --fresh (what pip has kept is not downloaded twice).")
        if system == "Linux" and "lib" in facts["error"]:
            todo = say("On Debian and Ubuntu: sudo apt install libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1")
        return Finding(say("Window (Qt)"), WRONG, facts["error"], todo)
    return Finding(say("Window (Qt)"), FINE, facts["version"])


def check_fonts(host: Host) -> Finding:
    """Can Chinese be shown?"""
    if has_chinese_font(host):
        return Finding(say("Fonts"), FINE, say("Chinese can be shown"))
    advice = say("Chinese will show as empty boxes. On Debian and Ubuntu: sudo apt install fonts-noto-cjk")
    return Finding(say("Fonts"), DOUBTFUL, say("no font for Chinese"), advice)


def has_chinese_font(host: Host) -> bool:
    """On Windows by file name, on Linux by fontconfig; a Mac always has one."""
    if host.system == "Darwin":
        return True
    if host.system == "Windows":
        fonts = Path(host.environ.get("SystemRoot", r"C:\Windows")) / "Fonts"
        return any((fonts / name).is_file() for name in ("msyh.ttc", "simsun.ttc", "Deng.ttf", "NotoSansSC-VF.ttf"))
    code, text = host.read(["fc-list", ":lang=zh-cn", "family"])
    return code == 0 and bool(text.strip())


def check_display(host: Host) -> Finding:
    """Is there a screen for the window, and on X11 the library that Qt needs since 6.5?"""
    name = say("Display")
    if host.system != "Linux":
        return Finding(name, FINE, host.system)
    screens = [variable for variable in ("WAYLAND_DISPLAY", "DISPLAY") if host.environ.get(variable)]
    if not screens:
        advice = say("The window needs one; demo, train and test work without.")
        return Finding(name, DOUBTFUL, say("none (neither DISPLAY nor WAYLAND_DISPLAY is set)"), advice)
    if screens == ["DISPLAY"] and not ctypes.util.find_library("xcb-cursor"):
        advice = say("On Debian and Ubuntu: sudo apt install libxcb-cursor0")
        return Finding(name, WRONG, say("the library libxcb-cursor is missing: the window cannot open"), advice)
    return Finding(name, FINE, ", ".join(f"{variable}={host.environ[variable]}" for variable in screens))


def without(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key != name}
