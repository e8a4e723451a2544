"""Amounts by block of the UNet, as merging programs write them: a list from IN00 to OUT11, or names. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping

from trainer.errors import BadInput
from trainer.messages import say
from trainer.models.configs import Shapes
from trainer.models.keys import LDM_UNET

BASE = "BASE"


def block_names(shapes: Shapes) -> list[str]:
    """The blocks of a model's UNet in order: IN00 …, M00, OUT00 …; SD 1 and 2 have 25, SDXL has 19."""
    inputs, outputs = _count(shapes, "input_blocks"), _count(shapes, "output_blocks")
    return [*(f"IN{n:02}" for n in range(inputs)), "M00", *(f"OUT{n:02}" for n in range(outputs))]


def _count(shapes: Shapes, side: str) -> int:
    numbers = {int(name[len(LDM_UNET) :].split(".")[1]) for name in shapes if name.startswith(f"{LDM_UNET}{side}.")}
    return max(numbers, default=-1) + 1


def block_of(name: str, names: list[str]) -> str:
    """The block of a tensor by its LDM name.

    As usual for such merges, what comes before the first block (time and size embeddings) counts to it, what comes after
    the last one to that, and all outside the UNet is BASE.
    """
    if not name.startswith(LDM_UNET):
        return BASE
    head, number = [*name[len(LDM_UNET) :].split("."), ""][:2]
    if head == "input_blocks":
        return f"IN{int(number):02}"
    if head == "output_blocks":
        return f"OUT{int(number):02}"
    if head == "middle_block":
        return "M00"
    return names[-1] if head == "out" else names[0]


def read_amounts(text: str, usual: float, names: list[str]) -> Mapping[str, float]:
    """The amount of every block and of BASE; what `text` does not name has the `usual` one. Raises BadInput."""
    amounts = dict.fromkeys([BASE, *names], usual)
    entries = [entry for entry in re.split(r"[,;\s]+", text.strip()) if entry]
    if not entries:
        return amounts
    if not any("=" in entry or ":" in entry for entry in entries):
        return amounts | _from_list(entries, names)
    for entry in entries:
        name, _, number = entry.replace(":", "=").partition("=")
        block = _block(name)
        if block not in amounts:
            raise BadInput(
                say("There is no block {name} in this model.", name=name),
                say("It has {names}.", names=f"{BASE}, {names[0]} … {names[-1]}"),
            )
        amounts[block] = _number(number)
    return amounts


def _block(name: str) -> str:
    """A block's name as it is usually written: IN4 is IN04, and MID is M00."""
    found = re.fullmatch(r"(IN|M|MID|OUT)(\d{0,2})", name.upper())
    return f"{found[1].removesuffix('ID')}{int(found[2] or 0):02}" if found else name.upper()


def _from_list(entries: list[str], names: list[str]) -> dict[str, float]:
    keys = [BASE, *names] if len(entries) == len(names) + 1 else names
    if len(entries) != len(keys):
        raise BadInput(
            say(
                "{given} amounts were given; this model has {count} blocks ({first} to {last}), so {count} or {more} "
                "are needed.",
                given=len(entries),
                count=len(names),
                more=len(names) + 1,
                first=names[0],
                last=names[-1],
            )
        )
    return dict(zip(keys, map(_number, entries), strict=True))


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not -10 <= number <= 10:
        raise BadInput(say("{value} is no amount of a block.", value=text), say("Numbers from 0 to 1 are usual."))
    return number
