"""Whether training can go on from a LoRA, as far as its header and PEFT's config beside it tell: for check and run alike.

No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainer.errors import BadInput
from trainer.messages import say
from trainer.models.header import inspect_file, lora_problem
from trainer.models.lora_names import DOWN, UP, Alphas, Speller, read_alphas, speller
from trainer.models.safetensors_file import TensorInfo
from trainer.models.strangers import CONTINUED_METHODS
from trainer.models.weights_file import read_header

_ANY = speller(None, ("lora_te1", "lora_te2"), sai=False)  # where no model is at hand: layers by their parts


def read_beginning(path: Path, family: str | None, names: Speller = _ANY) -> tuple[Mapping[str, TensorInfo], Alphas]:
    """The tensors of a plain LoRA by kohya's names, and the alphas that stand elsewhere.

    Args:
        path: the file, or an id of one that is still to be downloaded, which has no tensors yet.
        family: that it must be for; None if no model is chosen.
        names: of the model that it is for.

    Raises BadInput if it is none, of another family or kind, or has what none has.
    """
    facts = inspect_file(path)
    problem = lora_problem(facts, family)
    says_nothing = facts.kind == "lora" and facts.family is None  # then its names and sizes must fit, as always
    if problem is not None and not says_nothing:
        raise BadInput(problem)
    if facts.kind == "hub":
        return {}, Alphas({}, frozenset())
    method = facts.adapter.method if facts.adapter else "lora"
    if method not in CONTINUED_METHODS:
        text = say("It is a LoRA of the kind {kind}; only plain ones (with convolutions too) can be continued.", kind=method)
        raise BadInput(text)
    header = read_header(facts.path)
    names = names.of_parts(facts.adapter.parts if facts.adapter else ())
    tensors = _translated(header.tensors, names)
    return tensors, read_alphas(facts.path, header.metadata, header.tensors, names)


def _translated(tensors: Mapping[str, TensorInfo], names: Speller) -> dict[str, TensorInfo]:
    """Tensors under kohya's names. Raises BadInput where one has none, two have the same, or a layer is half of one."""
    found: dict[str, TensorInfo] = {}
    strangers, twice = [], []
    for name, info in tensors.items():
        spelled = names.tensor(name)
        if spelled is None:
            strangers.append(name)
            continue
        new = ".".join(spelled)
        if new in found:
            twice.append(name)
        found[new] = info
    if strangers or twice:
        raise _strange(strangers or twice, len(tensors))
    ends: dict[str, set[str]] = {}
    for name in found:
        layer, _, end = name.partition(".")
        ends.setdefault(layer, set()).add(end)
    halves = [layer for layer, have in ends.items() if not {DOWN, UP} <= have]
    if halves:
        raise _strange(halves, len(ends))
    return found


def _strange(names: list[str], total: int) -> BadInput:
    return BadInput(
        say(
            "{count} of its {total} entries are none of a plain LoRA, or only half of one, for example {name}.",
            count=len(names),
            total=total,
            name=names[0],
        )
    )
