"""Runs inside the environment for the doctor: tries PyTorch, bitsandbytes and xformers, and prints what happened as JSON.

Every part is tried on its own, so that one broken package does not hide the others. Needs no other file of Athanor.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any


def attempt(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The part's facts, or {"error": …}: an import of a broken package may raise anything."""
    try:
        return part()
    except Exception as problem:  # noqa: BLE001 - whatever a broken package raises is what the doctor is asked for
        return {"error": f"{type(problem).__name__}: {problem}".splitlines()[0][:300]}


def torch_facts() -> dict[str, Any]:
    """Version, CUDA, cards, and whether a small multiplication on each card gives the right answer."""
    import torch

    cards = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(number)
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        right = bool(((ones @ ones) == 64).all())
        free, total = torch.cuda.mem_get_info(number)
        compute = f"{about.major}.{about.minor}"
        cards.append({"name": about.name, "compute": compute, "right": right, "free": free, "total": total})
    return {"version": torch.__version__, "cuda": torch.version.cuda, "cards": cards}


def bitsandbytes_facts() -> dict[str, Any]:
    """One step of the 8-bit AdamW on the device that training would use."""
    import bitsandbytes
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    weight = torch.nn.Parameter(torch.ones(4096, device=device))
    weight.grad = torch.ones_like(weight)
    bitsandbytes.optim.AdamW8bit([weight], lr=0.1).step()
    return {"version": bitsandbytes.__version__, "device": device, "moved": bool((weight != 1).all())}


def xformers_facts() -> dict[str, Any]:
    """One call of its attention on the card."""
    import torch
    import xformers
    import xformers.ops

    query = torch.randn(1, 64, 8, 40, device="cuda", dtype=torch.float16)
    xformers.ops.memory_efficient_attention(query, query, query)
    torch.cuda.synchronize()
    return {"version": xformers.__version__}


def window_facts() -> dict[str, Any]:
    """Can Qt's part for windows be loaded (system libraries included)?"""
    import PySide6
    from PySide6 import QtGui, QtWidgets

    return {"version": PySide6.__version__, "loaded": bool(QtGui and QtWidgets)}


def main() -> None:
    """Print {"torch": {…}, "bitsandbytes": {…}, "xformers": {…}, "window": {…}} as the last line."""
    parts = {"torch": torch_facts, "bitsandbytes": bitsandbytes_facts, "xformers": xformers_facts, "window": window_facts}
    print()
    json.dump({name: attempt(part) for name, part in parts.items()}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
