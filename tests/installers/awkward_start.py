"""For the Windows workflow: gui.bat, for real, from a copy in an awkward folder: python tests/installers/awkward_start.py.

Runs "help" (no environment is made), from another folder, and compares the exit code and the output.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "a b & c (1) 炼丹"
        shutil.copytree(ROOT / "installers", folder / "installers")
        for name in ("gui.bat", "gui.sh", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        launcher = folder / ("gui.bat" if sys.platform == "win32" else "gui.sh")
        shown = subprocess.run([launcher, "help"], cwd=made, capture_output=True, check=False)
        wrong = subprocess.run([launcher, "setup", "nonsense"], cwd=made, capture_output=True, check=False)
    print(shown.stdout.decode("utf-8", errors="replace"), shown.stderr.decode("utf-8", errors="replace"))
    fine = shown.returncode == 0 and b"gui.sh demo" in shown.stdout and wrong.returncode == 2
    print("fine" if fine else f"exit codes {shown.returncode} (0 expected) and {wrong.returncode} (2 expected)")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
