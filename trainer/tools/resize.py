"""Makes a LoRA smaller: each layer's change is replaced by its best approximation of a lower rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.messages import say
from trainer.tools import provenance
from trainer.tools.catalog import ResizeSettings
from trainer.tools.lora_file import Layer, LoraFile, left_out_embeddings, only_plain, open_lora
from trainer.tools.output import check_output
from trainer.tools.places import PRECISIONS, Files
from trainer.tools.rules import check_rule
from trainer.tools.watch import Result, Watch

if TYPE_CHECKING:
    import torch

    from trainer.tools.lora_out import Made


@dataclass
class _Loss:
    """Squared lengths over all layers: of the changes, and of what was cut off them."""

    whole: float = 0.0
    cut: float = 0.0

    @property
    def kept(self) -> float:
        """Share of the length that is left, 1 if nothing was lost."""
        return (1 - self.cut / self.whole) ** 0.5 if self.whole else 1.0


def run(settings: ResizeSettings, watch: Watch) -> Result:
    """Write the smaller LoRA. Raises BadInput if it is no plain LoRA."""
    from trainer.tools.lora_out import LORA_SUFFIXES, network_metadata, ranks, write_lora

    check_rule(settings.rule, settings.amount)
    lora = open_lora(settings.lora, "LoRA")
    output = Path(settings.output)
    check_output(output, [lora.path], LORA_SUFFIXES, settings.overwrite)
    only_plain(lora)
    layers, loss, table = _resized(lora, settings, watch)
    metadata = provenance.of_lora(
        [lora.metadata], output, "resize", {"LoRA": lora.path}, network_metadata(layers),
        rule=settings.rule, amount=settings.amount or None, rank=settings.rank, conv_rank=settings.conv_rank or None,
    )  # fmt: skip
    write_lora(output, layers, metadata, PRECISIONS.get(settings.precision, lora.dtype), watch)
    found = ranks(layers)
    summary = say(
        "{path}: ranks {least} to {greatest}, {mean} on average; {kept} % of the change's length is left, {size} of the "
        "size.",
        path=str(output), least=int(found["least"]), greatest=int(found["greatest"]), mean=found["mean"],
        kept=f"{100 * loss.kept:.2f}", size=f"{output.stat().st_size / lora.path.stat().st_size:.0%}",
    )  # fmt: skip
    return Result(summary, (output,), left_out_embeddings([lora]), {"ranks": found, "kept": loss.kept, "layers": table})


def _resized(lora: LoraFile, settings: ResizeSettings, watch: Watch) -> tuple[dict[str, Made], _Loss, dict[str, Any]]:
    meter = watch.meter(say("Resizing layers"), len(lora.layers))
    made: dict[str, Made] = {}
    loss = _Loss()
    table: dict[str, Any] = {}
    with Files() as files:
        for name, layer in lora.layers.items():
            made[name], whole, cut = _layer(layer, lora.read(name, files), settings)
            loss.whole += whole
            loss.cut += cut
            error = (cut / whole) ** 0.5 if whole else 0.0
            table[name] = {"from": layer.rank, "to": made[name].rank, "error": error}
            meter.advance(1)
    return made, loss, table


def _layer(
    layer: Layer, tensors: Mapping[str, torch.Tensor], settings: ResizeSettings
) -> tuple[Made, float, float]:
    """A layer of a lower rank and the same scale, the squared length of its change and that of what was cut off.

    A layer whose rank is not above the wanted one keeps it; one that changes nothing keeps rank 1.
    """
    from trainer.tools.deltas import factors, scale
    from trainer.tools.lora_out import Made
    from trainer.tools.low_rank import rank_by_rule, svd_of_product

    up, down, row = factors(tensors)
    factor = scale(tensors, down.shape[0])
    svd = svd_of_product(up, down)
    most = settings.conv_rank if layer.is_convolution and settings.conv_rank else settings.rank
    strengths = svd.s * abs(factor)
    rank = rank_by_rule(strengths, settings.rule, settings.amount, most)
    squares = strengths.double().square()
    up, down = svd.halves(rank)
    return Made(up, down, row, factor), float(squares.sum()), float(squares[rank:].sum())
