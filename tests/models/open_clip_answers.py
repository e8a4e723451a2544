"""What OpenCLIP itself says of a few texts, with weights that a formula gives; kept in the .safetensors beside this file.

Tests read the answers everywhere. To make them anew, with open_clip_torch at hand (`pip install --no-deps open_clip_torch`;
its vision half and what that needs are not imported):

    python -m tests.models.open_clip_answers
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import sys
import types
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.models.shapes import open_clip
from trainer.models.tensor_file import write_file

ANSWERS = Path(__file__).with_suffix(".safetensors")
WIDTH, HEADS = 128, 2  # heads of 64, as OpenCLIP has them
TEXTS = (
    "a photo of a red cat, sitting on the roof of an old house at night; the moon is full, and three dogs (one of them "
    "black) look up to it from a garden with tall trees, a well and 27 broken flower pots",
    "A Tabby's kittens!",
    "",
)
PLACES = [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 76]  # of the 77 states of a text those that are kept


@dataclass(frozen=True)
class Case:
    """An encoder of so many layers, and whether the final norm is applied to the states before the last of them."""

    layers: int
    norm: bool


CASES = {"sd2": Case(layers=4, norm=True), "sdxl": Case(layers=3, norm=False)}


def weights(layers: int) -> dict[str, Tensor]:
    """An encoder's weights by OpenCLIP's names: the same numbers on every machine and with every version of torch."""
    return {name: _numbers(name, shape) for name, shape in open_clip("", WIDTH, layers).items()}


def _numbers(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers between -1 and 1 by a hash of name and place (murmur's last step), brought to a plausible size."""
    mixed = np.arange(int(np.prod(shape)), dtype=np.uint32) + np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    even = torch.from_numpy((mixed >> np.uint32(8)).astype(np.float32)) / 2**23 - 1
    if len(shape) == 1:
        return (even * 0.2 + (1 if name.endswith("weight") else 0)).reshape(shape)
    return (even * 0.3).reshape(shape)


@contextmanager
def installed() -> Iterator[tuple[Any, Any]]:
    """OpenCLIP's text encoder and tokenizer, without what their modules import and do not need. Raises ImportError."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("open_clip_torch is not installed")
    before = set(sys.modules)
    package, vision = types.ModuleType("open_clip"), types.ModuleType("torchvision.ops.misc")
    package.__path__ = list(spec.submodule_search_locations)
    vision.FrozenBatchNorm2d = type("FrozenBatchNorm2d", (), {})  # type: ignore[attr-defined]
    mender = types.ModuleType("ftfy")  # mends texts that were decoded wrongly, of which there are none here
    mender.fix_text = lambda text: text  # type: ignore[attr-defined]
    stand_ins = {"open_clip": package, "torchvision.ops.misc": vision, "ftfy": mender}
    stand_ins |= {name: types.ModuleType(name) for name in ("torchvision", "torchvision.ops") if name not in before}
    kept = {name: sys.modules[name] for name in stand_ins if name in before}
    sys.modules.update(stand_ins)
    try:
        encoder = importlib.import_module("open_clip.transformer").TextTransformer
        yield encoder, importlib.import_module("open_clip.tokenizer").SimpleTokenizer()
    finally:
        for name in set(sys.modules) - before:
            if name.startswith(("open_clip", "torchvision", "ftfy")):
                del sys.modules[name]
        sys.modules.update(kept)


def ask(case: Case, make: Any, tokenizer: Any) -> tuple[dict[str, Tensor], dict[str, tuple[int, ...]]]:
    """OpenCLIP's token numbers, states before the last layer and projected ends of the last; and its tensors' shapes."""
    encoder = make(width=WIDTH, heads=HEADS, layers=case.layers, mlp_ratio=2.0, output_dim=WIDTH).eval()
    encoder.load_state_dict(weights(case.layers), strict=True)
    ids = tokenizer(list(TEXTS), context_length=77)
    with torch.no_grad():
        x = encoder.token_embedding(ids) + encoder.positional_embedding
        for block in encoder.transformer.resblocks[:-1]:
            x = block(x, attn_mask=encoder.attn_mask)
        last = encoder.ln_final(encoder.transformer.resblocks[-1](x, attn_mask=encoder.attn_mask))
        states = encoder.ln_final(x) if case.norm else x
        pooled = last[torch.arange(len(ids)), ids.argmax(-1)] @ encoder.text_projection
    shapes = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    return {"ids": ids, "states": states[:, PLACES], "pooled": pooled}, shapes


def main() -> None:
    rows, shapes = [], {}
    with installed() as (make, tokenizer):
        for name, case in CASES.items():
            answers, shapes[name] = ask(case, make, tokenizer)
            for key, value in answers.items():
                word = "F32" if value.is_floating_point() else "I64"
                rows.append((f"{name}.{key}", tuple(value.shape), word, value.contiguous().clone))
    version = importlib.metadata.version("open_clip_torch")
    write_file(ANSWERS, rows, {"open_clip_torch": version, "torch": torch.__version__, "shapes": json.dumps(shapes)})


if __name__ == "__main__":
    main()
