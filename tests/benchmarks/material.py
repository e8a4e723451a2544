"""What is measured on: a random model of SD 1.5's real size, pictures, and run files. Made once, used again."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.config.files import write_run
from trainer.config.run import Folder, RunFile, sections

NUM_PICTURES = 18
MODEL_NAME = "random-sd15.safetensors"


def model_file(folder: Path) -> Path:
    """The full-size model in fp32 (4.3 GB), written on first use."""
    path = folder / MODEL_NAME
    if not path.exists():
        from tests.tiny import full_size_sd1
        from trainer.models.sd1 import FAMILY

        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < 6e9:
            raise SystemExit(f"{folder} has less than 6 GB free; name another with --folder")
        print(f"writing {path.name} (4.3 GB, once) ...", flush=True)
        FAMILY.save(full_size_sd1(), path)
    return path


def picture_folder(folder: Path, count: int, size: tuple[int, int], kind: str = "png") -> Path:
    """A kohya folder of `count` captioned pictures of about `size`, smooth with some noise, as photographs are."""
    pictures = folder / f"pictures-{count}-{size[0]}x{size[1]}-{kind}" / "1_thing"
    if not pictures.exists():
        pictures.mkdir(parents=True)
        for number in range(count):
            _save(pictures / f"{number:03}.{kind}", size, number)
            (pictures / f"{number:03}.txt").write_text(f"a thing, number {number}", encoding="utf-8")
    return pictures


def _save(path: Path, size: tuple[int, int], seed: int) -> None:
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (12, 12, 3), np.uint8))
    smooth = np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.int16)
    grain = draw.integers(-6, 7, smooth.shape, np.int16)
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=92)


def run_file(
    folder: Path, name: str, model: Path, pictures: Path, *, side: int, steps: int, device: str, runs: Path
) -> Path:
    """A run: UNet only, rank 8, batch 1, fp32, AdamW; no checkpointing, no previews, nothing saved but the end."""
    changes: dict[str, dict[str, Any]] = {
        "model": {"path": str(model)},
        "images": {"folders": (Folder(path=str(pictures)),), "resolution": (side, side)},
        "network": {"train": "unet", "rank": 8, "alpha": 8.0},
        "optimizer": {"name": "AdamW"},
        "training": {"steps": steps},
        "speed": {"precision": "fp32", "device": device},
        "samples": {"every_epochs": 0, "at_start": False, "at_end": False},
        "output": {"name": name, "folder": str(runs), "save_every_epochs": 0},
    }
    made = {key: kind(**changes.get(key, {})) for key, kind in sections().items()}
    path = folder / f"{name}.toml"
    write_run(path, RunFile(**made))
    return path


def warm_file_cache(path: Path) -> None:
    """Read a file once, so that the system has it in memory."""
    with path.open("rb", buffering=0) as handle:
        while handle.read(1 << 24):
            pass


def machine() -> dict[str, Any]:
    """This machine and its libraries, in words that fit into a report."""
    import psutil
    import torch

    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        facts["card"] = torch.cuda.get_device_name(0)
    return facts


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
