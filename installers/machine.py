"""What computer this is: cards, driver, memory. Facts only; torch_choice.py and doctor.py draw the conclusions."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from installers.host import Host

VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
DISPLAY_CLASSES = ("0x0300", "0x0302", "0x0380")  # VGA, 3D and other display controllers of the PCI standard


@dataclass(frozen=True)
class Card:
    """A graphics card. `compute` is NVIDIA's compute capability, None where the driver does not tell it."""

    name: str
    vendor: str  # "nvidia", "amd", "intel", "apple"
    compute: tuple[int, int] | None = None
    memory_mib: int | None = None


@dataclass(frozen=True)
class Machine:
    """The computer as far as choosing PyTorch's build needs it."""

    system: str  # "Linux", "Windows", "Darwin"
    arch: str  # "x86_64", "arm64", …
    cards: tuple[Card, ...] = ()
    driver: str | None = None  # NVIDIA's driver version, like "580.95.05"
    driver_complaint: str = ""  # what nvidia-smi said instead of answering

    @property
    def nvidia(self) -> tuple[Card, ...]:
        return tuple(card for card in self.cards if card.vendor == "nvidia")


def look(host: Host) -> Machine:
    """Look at the computer; asks NVIDIA's driver and, for what it does not know, the system's list of devices."""
    arch = {"amd64": "x86_64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine().lower())
    cards, driver, complaint = ask_nvidia(host)
    others = [card for card in system_cards(host) if card.vendor != "nvidia" or not cards]
    return Machine(host.system, arch, (*cards, *others), driver, complaint)


def nvidia_smi(host: Host) -> str | None:
    """The path of NVIDIA's tool; on Windows and in WSL it may stand outside the PATH."""
    places = ["/usr/lib/wsl/lib/nvidia-smi"]
    if host.system == "Windows":
        places = [host.environ.get("SystemRoot", r"C:\Windows") + r"\System32\nvidia-smi.exe"]
    return host.which("nvidia-smi") or next((place for place in places if Path(place).is_file()), None)


def ask_nvidia(host: Host) -> tuple[tuple[Card, ...], str | None, str]:
    """Return (cards, driver version, complaint) as nvidia-smi tells them; nothing at all where it is not installed."""
    tool = nvidia_smi(host)
    if tool is None:
        return (), None, ""
    fields = "name,driver_version,memory.total,compute_cap"
    code, text = host.read([tool, f"--query-gpu={fields}", "--format=csv,noheader,nounits"])
    if code != 0 and "compute_cap" in text:  # drivers before 2021 do not know that field
        fields = fields.removesuffix(",compute_cap")
        code, text = host.read([tool, f"--query-gpu={fields}", "--format=csv,noheader,nounits"])
    if code != 0:
        return (), None, (text.strip() or f"exit code {code}").splitlines()[0][:200]
    rows = [row for line in text.splitlines() if len(row := [part.strip() for part in line.split(",")]) >= 3]
    return tuple(parse_card(row) for row in rows), rows[0][1] if rows else None, ""


def parse_card(row: list[str]) -> Card:
    """A row of nvidia-smi: name, driver, MiB and, where known, the compute capability."""
    memory = int(row[2]) if row[2].isdigit() else None
    capability = re.fullmatch(r"(\d+)\.(\d+)", row[3]) if len(row) > 3 else None
    compute = (int(capability[1]), int(capability[2])) if capability else None
    return Card(row[0], "nvidia", compute, memory)


def system_cards(host: Host) -> tuple[Card, ...]:
    """Cards by the system's own list, so that an AMD or Intel card, or one without a driver, is seen too."""
    if host.system == "Windows":
        return tuple(cards_of_ids(windows_display_ids()))
    if host.system == "Darwin":
        apple = platform.machine().lower() == "arm64"
        return (Card("Apple GPU", "apple"),) if apple else ()
    return tuple(cards_of_ids(linux_display_ids(host.devices)))


def cards_of_ids(ids: list[tuple[str, str]]) -> list[Card]:
    """Cards from (vendor id like "0x10de", name) pairs; unknown vendors (virtual displays) are left out."""
    return [Card(name, VENDORS[vendor]) for vendor, name in ids if vendor in VENDORS]


def linux_display_ids(devices: Path) -> list[tuple[str, str]]:
    """(vendor id, name) of every display controller under /sys/bus/pci/devices."""
    found = []
    for device in sorted(devices.glob("*")):
        try:
            kind = (device / "class").read_text(encoding="ascii").strip()
            vendor = (device / "vendor").read_text(encoding="ascii").strip()
        except OSError:
            continue
        if kind.startswith(DISPLAY_CLASSES):
            found.append((vendor, f"{VENDORS.get(vendor, vendor).upper()} ({device.name})"))
    return found


def windows_display_ids() -> list[tuple[str, str]]:
    """(vendor id, name) of every display adapter in the registry; the Windows twin of linux_display_ids."""
    if os.name != "nt":
        return []
    import winreg

    place = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
    found = []
    for number in range(16):
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{place}\{number:04d}") as key:
                device = str(winreg.QueryValueEx(key, "MatchingDeviceId")[0]).lower()
                name = str(winreg.QueryValueEx(key, "DriverDesc")[0])
        except OSError:
            continue
        vendor = re.search(r"ven_([0-9a-f]{4})", device)
        if vendor:
            found.append((f"0x{vendor[1]}", name))
    return found


def driver_mark(host: Host) -> str:
    """A cheap fingerprint of NVIDIA's driver (no process is started): when it changes, the choice is made anew."""
    if host.system == "Windows":
        library = Path(host.environ.get("SystemRoot", r"C:\Windows")) / "System32" / "nvcuda.dll"
    else:
        library = Path("/proc/driver/nvidia/version")
        try:
            return library.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()
        except (OSError, IndexError):
            library = Path("/usr/lib/wsl/lib/libcuda.so.1")
    try:
        facts = library.stat()
    except OSError:
        return ""
    return f"{library.name} {facts.st_size} {int(facts.st_mtime)}"


def total_memory() -> int | None:
    """Bytes of RAM, or None where the system does not say."""
    if os.name == "nt":
        return windows_memory()[0]
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def windows_memory() -> tuple[int, int]:
    """(bytes of RAM, bytes of RAM and page file together) by Windows itself."""
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            ("total", ctypes.c_uint64),
            ("free", ctypes.c_uint64),
            ("total_commit", ctypes.c_uint64),
            ("free_commit", ctypes.c_uint64),
            ("total_virtual", ctypes.c_uint64),
            ("free_virtual", ctypes.c_uint64),
            ("free_extended", ctypes.c_uint64),
        )

    status = Status(length=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return status.total, status.total_commit
