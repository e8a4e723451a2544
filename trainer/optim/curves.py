"""Schedules as plain functions of the step: the window draws them, the optimiser wraps them.

Shapes and conventions are those of sd-scripts (transformers.get_scheduler): warm-up is linear from 0, and step `s` of
`total` uses multiplier(s) with s counted from 0, so the last step of a falling schedule is not yet exactly 0.
"""

from __future__ import annotations

import math


def warmup_steps(total_steps: int, ratio: float, steps: int | None) -> int:
    """Warm-up in optimiser steps: `steps` if given, else `ratio` (0..1) of the run, rounded."""
    return steps if steps is not None else round(total_steps * ratio)


def multiplier(name: str, step: int, total_steps: int, warmup: int = 0, cycles: int = 1, power: float = 1.0) -> float:
    """The factor on the learning rate at optimiser step `step` (from 0) of `total_steps`.

    Args:
        name: a row of `trainer.optim.table.SCHEDULES`.
        step: 0 … total_steps (larger values are held at the end).
        total_steps: optimiser steps of the whole run, ≥ 1.
        warmup: optimiser steps of linear rise from 0.
        cycles: hard restarts of `cosine_with_restarts`.
        power: exponent of `polynomial`.

    Raises:
        KeyError: for a name that is not in the table.
    """
    if name in ("constant", "adafactor"):
        return 1.0
    if step < warmup:
        return step / max(1, warmup)
    if name == "constant_with_warmup":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return _FALLING[name](progress, cycles, power)


def restart_steps(total_steps: int, warmup: int, cycles: int) -> list[int]:
    """Steps at which `cosine_with_restarts` begins anew (for marks in the drawing)."""
    span = total_steps - warmup
    return [warmup + math.ceil(span * cycle / cycles) for cycle in range(1, cycles)]


def _linear(progress: float, cycles: int, power: float) -> float:
    return 1.0 - progress


def _cosine(progress: float, cycles: int, power: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _restarts(progress: float, cycles: int, power: float) -> float:
    return 0.0 if progress >= 1.0 else 0.5 * (1.0 + math.cos(math.pi * ((cycles * progress) % 1.0)))


def _polynomial(progress: float, cycles: int, power: float) -> float:
    end = 1e-7  # transformers' lr_end, relative to a rate of 1
    return float((1.0 - end) * (1.0 - progress) ** power + end)


_FALLING = {
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _restarts,
    "polynomial": _polynomial,
}
