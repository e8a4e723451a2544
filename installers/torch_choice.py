"""Which build of PyTorch fits the card and its driver, and why, in sentences. Pure functions of the machine."""

from __future__ import annotations

from dataclasses import dataclass

from installers.addresses import addresses
from installers.machine import Card, Machine
from installers.words import say

# The PyTorch this program is tested with. The builds below exist for it on PyTorch's own index.
TORCH_VERSION = "2.13.0"


@dataclass(frozen=True)
class Build:
    """A CUDA build: the driver it needs at least, and the compute capabilities it holds code for."""

    tag: str
    driver: int
    lowest: tuple[int, int]
    highest: tuple[int, int] | None  # None: cards newer than PyTorch are tried


# Best first. Drivers: NVIDIA's minor version compatibility (CUDA 13 from 580, CUDA 12 from 525).
# Capabilities: PyTorch's CUDA support matrix for 2.12 and 2.13.
BUILDS = (
    Build("cu130", driver=580, lowest=(7, 5), highest=None),
    Build("cu126", driver=525, lowest=(5, 0), highest=(9, 0)),
)
PYPI_BUILD = {("Linux", "x86_64"): "cu130", ("Linux", "arm64"): "cu130"}  # what the plain index holds; others: CPU only


@dataclass(frozen=True)
class Choice:
    """The build to install ("cpu", "cu130", …; "" is the plain index's own) and what the user should know.

    `blocked` says why the NVIDIA card cannot be used as things are, though it could be: then a CPU build is
    installed only after asking, and the choice is made anew at the next start.
    """

    tag: str
    notes: tuple[str, ...] = ()
    blocked: str = ""

    @property
    def cuda(self) -> bool:
        return self.tag.startswith("cu")


def choose(machine: Machine, asked: str = "") -> Choice:
    """Choose the build for a machine; `asked` ("cpu", "cu126", …) is the user's own choice and is obeyed."""
    if asked:
        return Choice(asked, (say("PyTorch's build was chosen by hand: {build}.", build=asked),))
    if machine.system == "Darwin":
        return Choice("", mac_notes(machine))
    if machine.driver_complaint:
        return Choice("cpu", blocked=broken_driver(machine.driver_complaint))
    if not machine.nvidia:
        return Choice("cpu", other_card_notes(machine))
    if machine.driver is None:
        return Choice("cpu", blocked=no_driver(machine.nvidia[0]))
    return choose_cuda(machine.nvidia, machine.driver)


def choose_cuda(cards: tuple[Card, ...], driver: str) -> Choice:
    """The best build that serves the most of these NVIDIA cards with this driver."""
    if all(card.compute is not None and card.compute < BUILDS[-1].lowest for card in cards):
        return Choice("cpu", (too_old(cards[0]),))
    served = {build: [card for card in cards if serves(build, card)] for build in BUILDS}
    usable = [build for build in BUILDS if driver_number(driver) >= build.driver and served[build]]
    if not usable:
        needed = min(build.driver for build in BUILDS if served[build])
        return Choice("cpu", blocked=old_driver(driver, needed))
    best = max(usable, key=lambda build: len(served[build]))  # the first of equals: the newer CUDA
    left_out = [card for card in cards if card not in served[best]]
    return Choice(best.tag, tuple(too_old(card) for card in left_out))


def serves(build: Build, card: Card) -> bool:
    """Does the build hold code for the card? A card that does not tell its capability gets the benefit of the doubt."""
    if card.compute is None:
        return True
    return build.lowest <= card.compute and (build.highest is None or card.compute <= build.highest)


def driver_number(driver: str) -> int:
    """The major number of a driver version: "580.95.05" -> 580; 0 if it cannot be read."""
    major = driver.split(".", 1)[0]
    return int(major) if major.isdigit() else 0


def old_driver(driver: str, needed: int) -> str:
    return say(
        "NVIDIA's driver {driver} is too old for this card's PyTorch: it needs {needed} or newer. Update it from {page}, "
        "restart the computer and start again.",
        driver=driver,
        needed=needed,
        page=addresses()["driver_page"],
    )


def no_driver(card: Card) -> str:
    return say(
        "There is an NVIDIA card ({card}), but its driver is not installed (nvidia-smi is missing). Install it from {page} "
        "(on Linux: your system's package), restart the computer and start again.",
        card=card.name,
        page=addresses()["driver_page"],
    )


def broken_driver(complaint: str) -> str:
    return say(
        "NVIDIA's driver does not answer: {complaint}. After a driver update a restart of the computer usually mends this; "
        "else install the driver again from {page}.",
        complaint=complaint.rstrip("."),
        page=addresses()["driver_page"],
    )


def too_old(card: Card) -> str:
    capability = ".".join(map(str, card.compute)) if card.compute else "?"
    return say(
        "{card} (compute capability {capability}) is not supported by the PyTorch build chosen here (it starts at "
        "{lowest}, and a mix of old and new cards may need one of them left out): it will not be used.",
        card=card.name,
        capability=capability,
        lowest=".".join(map(str, BUILDS[-1].lowest)),
    )


def other_card_notes(machine: Machine) -> tuple[str, ...]:
    """What owners of AMD and Intel cards, or of no card, should know before they wait for a training."""
    vendors = {card.vendor: card.name for card in machine.cards}
    if "amd" in vendors:
        return (
            say(
                "The AMD card {card} cannot be used: training runs on NVIDIA cards (CUDA). Everything works on the "
                "processor, but slowly: fine for the demo, days for a real model.",
                card=vendors["amd"],
            ),
        )
    if "intel" in vendors:
        return (
            say(
                "The Intel graphics {card} cannot be used: training runs on NVIDIA cards (CUDA). Everything works on the "
                "processor, but slowly: fine for the demo, days for a real model.",
                card=vendors["intel"],
            ),
        )
    return (
        say(
            "No NVIDIA card was found: everything will run on the processor, slowly: fine for the demo, days for a "
            "real model."
        ),
    )


def mac_notes(machine: Machine) -> tuple[str, ...]:
    if machine.arch != "arm64":
        return (say("PyTorch no longer makes packages for Macs with Intel processors; the set-up will probably fail."),)
    return (say("Apple's graphics are not used for training yet: everything runs on the processor, slowly."),)
