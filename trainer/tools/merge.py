"""Makes one model of two or three: weighted sum or added difference, with own amounts for the UNet's blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import BadInput
from trainer.messages import Message, say
from trainer.tools import provenance
from trainer.tools.blocks import block_names, block_of, read_amounts
from trainer.tools.catalog import MergeSettings
from trainer.tools.checkpoint import (
    Checkpoint,
    architecture_of,
    left_out_averages,
    open_checkpoint,
    part_of,
    same_family,
    same_shapes,
)
from trainer.tools.model_out import MODEL_SUFFIXES, copied, file_dtype, in_dtype, write_model
from trainer.tools.output import Row, check_output
from trainer.tools.places import Files
from trainer.tools.vae import replace_vae
from trainer.tools.watch import Result, Watch

if TYPE_CHECKING:
    import torch

_MERGED = ("unet", "vae", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class _Plan:
    """The models, and the amounts of B (or of the difference) and of C by block."""

    models: Mapping[str, Checkpoint]  # "Model A", …
    is_sum: bool
    amounts: Mapping[str, float]
    amount_c: float
    blocks: list[str]
    skips_vae: bool

    @property
    def first(self) -> Checkpoint:
        return self.models["Model A"]

    @property
    def others(self) -> list[Checkpoint]:
        return [model for label, model in self.models.items() if label != "Model A"]


def run(settings: MergeSettings, watch: Watch) -> Result:
    """Write the merged model. Raises BadInput if the models do not fit together."""
    plan = _plan(settings)
    output = Path(settings.output)
    paths = [model.path for model in plan.models.values()]
    check_output(output, [*paths, Path(settings.vae or settings.model_a)], MODEL_SUFFIXES, settings.overwrite)
    first = replace_vae(plan.first, settings.vae) if settings.vae else plan.first
    num_merged = sum(_is_merged(name, plan, first) for name in first.places)
    if num_merged == 0:
        raise BadInput(
            say("There is no weight in all of these models that can be merged. {summary}", summary=plan.first.facts.summary)
        )
    with Files() as files:
        rows = list(_rows(plan, first, settings, files))
        write_model(output, rows, _metadata(plan, settings), watch, plan.first)
    return Result(
        say("{count} tensors merged into {path}.", count=num_merged, path=str(output)),
        (output,),
        tuple(_notes(plan, num_merged)),
        {"merged": num_merged, "tensors": len(rows)},
    )


def _plan(settings: MergeSettings) -> _Plan:
    given = {"Model A": settings.model_a, "Model B": settings.model_b, "Model C": settings.model_c}
    models = {label: open_checkpoint(path, label) for label, path in given.items() if path}
    is_sum = settings.mode == "sum"
    if not is_sum and not settings.model_c:
        raise BadInput(say("To add a difference three models are needed: A + (B − C) × amount."))
    if is_sum and settings.amount_c and not settings.model_c:
        raise BadInput(say("There is an amount of C, but no model C."))
    same_family(models)
    same_shapes(models)
    names = block_names(models["Model A"].shapes)
    amounts = read_amounts(settings.blocks, settings.amount, names)
    return _Plan(models, is_sum, amounts, settings.amount_c, names, settings.vae_from == "a" or bool(settings.vae))


def _is_merged(name: str, plan: _Plan, first: Checkpoint) -> bool:
    """Whether all models have this weight; markers, position numbers and schedules are taken from A."""
    part = part_of(name)
    if part not in _MERGED or (part == "vae" and plan.skips_vae) or not first.places[name].is_float:
        return False
    return all(name in model.places and model.places[name].is_float for model in plan.others)


def _rows(plan: _Plan, first: Checkpoint, settings: MergeSettings, files: Files) -> Iterator[Row]:
    for name, place in first.places.items():
        if part_of(name) == "ema":
            continue  # averages of A's training are no averages of the mixture
        if _is_merged(name, plan, first):
            dtype = file_dtype(name, place, settings.precision)
            yield Row(name, place.shape, dtype, partial(_merged, name, plan, dtype, files))
        else:
            yield copied(name, place, settings.precision, files)


def _merged(name: str, plan: _Plan, dtype: str, files: Files) -> torch.Tensor:
    """A weight of the new model. Where a first convolution has fewer inputs than A's (inpainting), the rest is A's."""
    import torch

    from trainer.tools.blend import weighted_sum

    amount = plan.amounts[block_of(name, plan.blocks)]
    first = files.read(plan.first.places[name])
    others = [files.read(model.places[name]) for model in plan.others]
    if plan.is_sum:
        shares = [amount, plan.amount_c][: len(others)]
        shares = [1 - sum(shares), *shares]
    else:
        shares = [1, amount, -amount]
    if all(other.shape == first.shape for other in others):
        return weighted_sum([first, *others], shares, dtype, name)
    num_shared = min(other.shape[1] for other in others)
    shared = weighted_sum([one[:, :num_shared].contiguous() for one in (first, *others)], shares, dtype, name)
    return torch.cat((shared, in_dtype(first[:, num_shared:], dtype, name).to(shared.dtype)), dim=1)


def _metadata(plan: _Plan, settings: MergeSettings) -> dict[str, str]:
    inputs = {label: model.path for label, model in plan.models.items()}
    if settings.vae:
        inputs["VAE"] = Path(settings.vae)
    return provenance.of_model(
        plan.first.metadata, architecture_of(plan.first.facts), Path(settings.output), "merge", inputs,
        mode=settings.mode, amount=settings.amount, amount_c=settings.amount_c or None, blocks=settings.blocks,
        precision=settings.precision,
    )  # fmt: skip


def _notes(plan: _Plan, num_merged: int) -> Iterator[Message]:
    """What was not merged, with counts."""
    yield from left_out_averages(plan.first)
    for label, model in plan.models.items():
        if label == "Model A":
            continue
        missing = [name for name in plan.first.places if part_of(name) in _MERGED and name not in model.places]
        strange = [name for name, place in model.places.items() if name in plan.first.places and part_of(name) in _MERGED
                   and place.is_float != plan.first.places[name].is_float]  # fmt: skip
        unused = [name for name in model.places if part_of(name) in _MERGED and name not in plan.first.places]
        if missing:
            yield say(
                "{count} weights are not in {label} and were taken from Model A, for example {name}.",
                count=len(missing),
                label=label,
                name=missing[0],
            )
        if strange:
            yield say(
                "{count} weights of {label} are numbers of another kind than in Model A, from which they were taken, for "
                "example {name}.",
                count=len(strange),
                label=label,
                name=strange[0],
            )
        if unused:
            yield say(
                "{count} weights of {label} have no place in Model A and were left out, for example {name}.",
                count=len(unused),
                label=label,
                name=unused[0],
            )
