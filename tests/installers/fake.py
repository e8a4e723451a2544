"""A computer that exists only in a test: its card, network, disk, pip and user answer as the test says."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from installers.environment import Places
from installers.host import GIB, Host
from installers.torch_choice import TORCH_VERSION

SMI_4090 = "NVIDIA GeForce RTX 4090, 580.95.05, 24564, 8.9\n"
PYPROJECT = """
[project]
name = "small"
version = "0"
dependencies = ["numpy>=1", "torch>=2.6"]
[project.optional-dependencies]
cuda = ["xformers>=0.0.30"]
tensorboard = ["tensorboardX"]
test = ["pytest"]
"""

CPU = f"torch=={TORCH_VERSION}+cpu"
CUDA = f"torch=={TORCH_VERSION}+cu130"
OFFICIAL = "https://download.pytorch.org/whl"


class FakeHost(Host):
    """Records what is told and run. `offers` maps what pip may be asked for ("torch==2.13.0+cpu") to (version, cuda)."""

    def __init__(self, root: Path, system: str = "Linux", smi: str | None = None) -> None:
        super().__init__({"PATH": "", "ATHANOR_LANG": "en"})
        self.devices = root / "pci"
        self.root, self.system, self.smi = root, system, smi
        self.told: list[str] = []
        self.commands: list[list[str]] = []
        self.environs: list[Mapping[str, str]] = []
        self.folders: list[Path | None] = []
        self.asked: list[str] = []
        self.yes = False
        self.online: set[str] = set()
        self.free: dict[Path, int] = {}
        self.offers: dict[str, tuple[str, str | None]] = {}
        self.breaks: set[str] = set()
        self.probe = (0, "")
        self.exit_codes: dict[str, int] = {}
        root.joinpath("pyproject.toml").write_text(PYPROJECT, encoding="utf-8")

    @property
    def text(self) -> str:
        return "\n".join(self.told)

    @property
    def pip_requests(self) -> list[list[str]]:
        """What pip was asked to install, without its options about logs."""
        return [command[6:] for command in self.commands if command[1:4] == ["-m", "pip", "install"]]

    def offer_torch(self, tag: str, cuda: str | None) -> None:
        self.offers[f"torch=={TORCH_VERSION}+{tag}"] = (f"{TORCH_VERSION}+{tag}", cuda)

    def tell(self, text: str) -> None:
        self.told.append(text)

    def ask(self, question: str) -> bool:
        self.asked.append(question)
        return self.yes

    def which(self, program: str) -> str | None:
        return "nvidia-smi" if program == "nvidia-smi" and self.smi is not None else None

    def reachable(self, address: str) -> bool:
        return any(address.startswith(place) for place in self.online)

    def free_bytes(self, folder: Path) -> int:
        return self.free.get(folder, 100 * GIB)

    def read(self, command: Sequence[str], timeout_s: float = 20.0) -> tuple[int, str]:
        words = [str(word) for word in command]
        if words[0] == "nvidia-smi":
            return self.answer_smi(words[1])
        if words[1:] == ["-m", "pip", "--version"]:
            return 0, "pip 26.1 from somewhere"
        if words[0] == "fc-list":
            return 0, "Noto Sans CJK SC"
        return self.probe

    def answer_smi(self, query: str) -> tuple[int, str]:
        if self.smi and self.smi.startswith("!"):
            return 9, self.smi[1:]
        if "compute_cap" in query and self.smi and self.smi.count(",") == 2:
            return 2, 'Field "compute_cap" is not a valid field to query.'
        return 0, self.smi or ""

    def run(self, command: Sequence[str], environ: Mapping[str, str], folder: Path | None = None) -> int:
        words = [str(word) for word in command]
        self.commands.append(words)
        self.environs.append(environ)
        self.folders.append(folder)
        if words[1:3] == ["-m", "venv"]:
            make_fake_venv(Places(self.root))
        elif words[1:4] == ["-m", "pip", "install"]:
            return self.answer_pip(Path(words[words.index("--log") + 1]), words)
        return next((code for word, code in self.exit_codes.items() if word in words), 0)

    def become(self, command: Sequence[str], environ: Mapping[str, str], folder: Path | None) -> int:
        return self.run(command, environ, folder)

    def answer_pip(self, log: Path, words: list[str]) -> int:
        """Install what is offered; "no match" and a broken download look as pip's do."""
        for word in words:
            if word in self.breaks:
                log.write_text("ERROR: connection broken", encoding="utf-8")
                return 1
            if word.startswith("torch=="):
                if word not in self.offers:
                    log.write_text(f"ERROR: No matching distribution found for {word}", encoding="utf-8")
                    return 1
                put_torch(Places(self.root).venv, *self.offers[word])
        return 0


def make_fake_venv(places: Places, version: str = "") -> None:
    """What `python -m venv` would make, as far as the set-up looks at it."""
    places.python.parent.mkdir(parents=True, exist_ok=True)
    places.python.write_bytes(b"")
    version = version or ".".join(map(str, sys.version_info[:3]))
    home = Path(getattr(sys, "_base_executable", sys.executable)).parent
    (places.venv / "pyvenv.cfg").write_text(f"home = {home}\nversion = {version}\n", encoding="utf-8")


def put_torch(venv: Path, version: str, cuda: str | None) -> None:
    """A PyTorch as far as the set-up looks at it: version.py as its wheels have it."""
    folder = venv / "lib" / "python3.11" / "site-packages" / "torch"
    folder.mkdir(parents=True, exist_ok=True)
    text = f"__version__ = '{version}'\ndebug = False\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = None\n"
    (folder / "version.py").write_text(text, encoding="utf-8")


def without_card(host: FakeHost) -> FakeHost:
    """PyTorch's index answers and has the CPU build."""
    host.online = {f"{OFFICIAL}/cpu"}
    host.offer_torch("cpu", None)
    return host


def with_card(host: FakeHost, online: bool = True) -> FakeHost:
    """An RTX 4090 with a current driver; its build is offered, by PyTorch's index if `online`."""
    host.smi = SMI_4090
    host.online = {f"{OFFICIAL}/cu130"} if online else set()
    host.offer_torch("cu130", "13.0")
    return host
