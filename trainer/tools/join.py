"""Makes one LoRA of several: side by side, which is exactly their sum, or the best approximation of the sum of some rank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import BadInput
from trainer.messages import say
from trainer.tools import provenance
from trainer.tools.catalog import JoinSettings, LoraEntry
from trainer.tools.lora_file import LoraFile, left_out_embeddings, only_plain, open_loras, part_of_layer, weight_of
from trainer.tools.output import check_output
from trainer.tools.places import PRECISIONS, Files
from trainer.tools.watch import Result, Watch

if TYPE_CHECKING:
    import torch

    from trainer.tools.lora_out import Made

Parts = list[tuple[LoraFile, LoraEntry]]


def run(settings: JoinSettings, watch: Watch) -> Result:
    """Write the new LoRA. Raises BadInput if the LoRAs do not fit together or are not plain ones."""
    from trainer.tools.lora_out import LORA_SUFFIXES, network_metadata, ranks, write_lora

    loras = open_loras(settings.loras)
    output = Path(settings.output)
    check_output(output, [lora.path for lora in loras], LORA_SUFFIXES, settings.overwrite)
    for lora in loras:
        only_plain(lora)
    layers = _join(loras, settings, watch)
    inputs = {f"LoRA {number}": lora.path for number, lora in enumerate(loras, 1)}
    metadata = provenance.of_lora(
        [lora.metadata for lora in loras], output, "join", inputs, network_metadata(layers),
        weights=provenance.weights(settings.loras), rank=settings.rank or None, conv_rank=settings.conv_rank or None,
    )  # fmt: skip
    dtype = PRECISIONS.get(settings.precision, loras[0].dtype)
    write_lora(output, layers, metadata, dtype, watch)
    found = ranks(layers)
    return Result(
        say(
            "{count} LoRAs merged into {path}: {layers} layers, ranks up to {rank}.",
            count=len(loras), path=str(output), layers=len(layers), rank=int(found["greatest"]),
        ),
        (output,),
        left_out_embeddings(loras),
        {"layers": len(layers), "ranks": found},
    )  # fmt: skip


def _join(loras: Sequence[LoraFile], settings: JoinSettings, watch: Watch) -> dict[str, Made]:
    """Every layer that any of the LoRAs has."""
    by_layer: dict[str, Parts] = {}
    for lora, entry in zip(loras, settings.loras, strict=True):
        for name in lora.layers:
            if weight_of(entry, part_of_layer(name)):
                by_layer.setdefault(name, []).append((lora, entry))
    if not by_layer:
        raise BadInput(say("All weights are 0: nothing is left to be merged."))
    meter = watch.meter(say("Merging layers"), len(by_layer))
    made: dict[str, Made] = {}
    with Files() as files:
        for name, parts in by_layer.items():
            made[name] = _joined(name, parts, settings, files)
            meter.advance(1)
    return made


def _joined(name: str, parts: Parts, settings: JoinSettings, files: Files) -> Made:
    """The sum of one layer's changes, each times its weight, as a layer of scale 1.

    A factor's root goes to either side, so that neither gets values that a short float could not hold.
    """
    import torch

    from trainer.tools.deltas import factors, scale
    from trainer.tools.lora_out import Made
    from trainer.tools.low_rank import svd_of_product

    ups: list[torch.Tensor] = []
    downs: list[torch.Tensor] = []
    rows: set[tuple[int, ...]] = set()
    for lora, entry in parts:
        tensors = lora.read(name, files)
        up, down, row = factors(tensors)
        factor = scale(tensors, down.shape[0]) * weight_of(entry, part_of_layer(name))
        root = abs(factor) ** 0.5
        ups.append(up * (root if factor > 0 else -root))
        downs.append(down * root)
        rows.add((len(up), *row))
    if len(rows) > 1:
        _refuse(name, parts, rows)
    joined = Made(torch.cat(ups, 1), torch.cat(downs), next(iter(rows))[1:])
    rank = settings.conv_rank if joined.is_convolution and settings.conv_rank else settings.rank
    if settings.rank and rank < joined.rank:
        up, down = svd_of_product(joined.up, joined.down).halves(rank)
        return joined._replace(up=up, down=down)
    return joined


def _refuse(name: str, parts: Parts, rows: set[tuple[int, ...]]) -> None:
    raise BadInput(
        say(
            "The layer {name} has different sizes in {files} ({sizes}).",
            name=name,
            files=", ".join(lora.path.name for lora, _ in parts),
            sizes="; ".join(str(list(row)) for row in sorted(rows)),
        ),
        say("LoRAs can only be merged if they are made for models of the same sizes."),
    )
