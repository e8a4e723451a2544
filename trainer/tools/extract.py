"""Makes a LoRA of what a training changed in a model: the difference of two checkpoints, layer by layer, cut to a rank."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.ahead import ahead
from trainer.errors import BadInput
from trainer.messages import Message, say
from trainer.tools import provenance
from trainer.tools.catalog import ExtractSettings
from trainer.tools.checkpoint import (
    Checkpoint,
    base_version_of,
    check_numbers,
    family_architecture,
    open_checkpoint,
    part_of,
    same_family,
)
from trainer.tools.output import check_output
from trainer.tools.places import PRECISIONS, Files, Place
from trainer.tools.rules import check_rule
from trainer.tools.targets import lora_layers
from trainer.tools.watch import Result, Watch

if TYPE_CHECKING:
    import torch

    from trainer.tools.lora_out import Made

_EXACT_RULES = ("frobenius", "cumulative")
STRETCH = 1 << 18  # numbers that are compared at once where one difference is enough


@dataclass(frozen=True)
class _Job:
    """A layer to look at: its place in both models, and the rank that it may have."""

    name: str
    base: Place
    tuned: Place
    rank: int


@dataclass(frozen=True)
class _Layer:
    """A layer of the LoRA, the squared length of the change and of what the layer keeps of it."""

    made: Made
    whole: float
    kept: float


@dataclass
class _Seen:
    """Squared lengths of all differences and of what the LoRA keeps of them; and how many layers are equal."""

    whole: float = 0.0
    kept: float = 0.0
    num_equal: int = 0
    outside: list[str] = field(default_factory=list)  # weights that differ where no LoRA has a layer


def run(settings: ExtractSettings, watch: Watch) -> Result:
    """Write the LoRA. Raises BadInput if the models do not fit together, or do not differ."""
    from trainer.tools.lora_out import LORA_SUFFIXES, network_metadata, ranks, write_lora

    check_rule(settings.rule, settings.amount)
    base, tuned = open_checkpoint(settings.base, "Base model"), open_checkpoint(settings.tuned, "Trained model")
    output = Path(settings.output)
    check_output(output, [base.path, tuned.path], LORA_SUFFIXES, settings.overwrite)
    same_family({"Base model": base, "Trained model": tuned})
    jobs = list(_jobs(base, tuned, settings))
    layers, seen = _extract(jobs, list(_outside(base, tuned, settings)), settings, watch)
    if not layers:
        raise BadInput(say("The models do not differ in the {count} layers that were compared.", count=len(jobs)))
    write_lora(
        output,
        layers,
        _metadata(base, tuned, settings) | network_metadata(layers),
        PRECISIONS[settings.precision],
        watch,
    )
    found, share = ranks(layers), (seen.kept / seen.whole) ** 0.5
    return Result(
        say(
            "{path}: {count} layers, ranks {least} to {greatest}; {kept} % of the difference's length is in it.",
            path=str(output), count=len(layers), least=int(found["least"]), greatest=int(found["greatest"]),
            kept=f"{100 * share:.2f}",
        ),
        (output,),
        tuple(_notes(seen, len(jobs))),
        {"layers": len(layers), "equal": seen.num_equal, "outside": len(seen.outside), "ranks": found, "kept": share},
    )  # fmt: skip


def _jobs(base: Checkpoint, tuned: Checkpoint, settings: ExtractSettings) -> Iterator[_Job]:
    """The layers that a LoRA acts on, in its file's order. Raises BadInput for sizes that differ or layers that lack."""
    missing = []
    for name, target in lora_layers(base).items():
        if settings.parts != "both" and (target.part == "unet") != (settings.parts == "unet"):
            continue
        rank = settings.conv_rank if target.in_resnet and _is_wide(base.places[target.weight]) else settings.rank
        if target.in_resnet and not settings.conv_rank:
            continue
        if target.weight not in tuned.places:
            missing.append(target.weight)
            continue
        one, other = base.places[target.weight], tuned.places[target.weight]
        if one.shape != other.shape:
            raise BadInput(
                say(
                    "The weight {name} is {base} in the base model and {tuned} in the trained one.",
                    name=target.weight,
                    base=" × ".join(map(str, one.shape)),
                    tuned=" × ".join(map(str, other.shape)),
                )
            )
        for model in (base, tuned):
            check_numbers(model, target.weight)
        if target.stop is not None:
            one, other = (place.rows(target.start, target.stop) for place in (one, other))
        yield _Job(name, one, other, rank)
    if missing:
        raise BadInput(
            say(
                "The trained model lacks {count} weights of the base model, for example {name}.",
                count=len(missing),
                name=missing[0],
            ),
            say("If it has no text encoder, extract the UNet only."),
        )


def _outside(base: Checkpoint, tuned: Checkpoint, settings: ExtractSettings) -> Iterator[_Job]:
    """The weights for which no LoRA has a layer: norms, biases, embeddings, and the ends of the UNet."""
    held = {target.weight for target in lora_layers(base).values()}
    for name, one in base.places.items():
        other = tuned.places.get(name)
        if name in held or other is None or not _is_chosen(part_of(name), settings.parts):
            continue
        if one.shape == other.shape and one.is_float and other.is_float:
            yield _Job(name, one, other, 0)


def _is_chosen(part: str | None, parts: str) -> bool:
    """Whether a part of the model ("vae", …) is one of those that are looked at."""
    chosen = "unet" if part == "unet" else "text_encoder" if part in ("text_encoder", "text_encoder_2") else None
    return chosen is not None and parts in ("both", chosen)


def _differs(job: _Job, settings: ExtractSettings, files: Files) -> bool:
    """Whether a weight differs; it is read up to the first stretch that does."""
    try:
        return any(_difference(part, settings.least_change, files) is not None for part in _stretches(job))
    except BadInput:
        return True  # values that are no numbers, where nothing is made of them


def _stretches(job: _Job) -> Iterator[_Job]:
    """A weight's rows, some at a time; those that are turned when read, whole."""
    shape = job.base.shape
    if not shape or any(piece.turned or not piece.info.shape for place in (job.base, job.tuned) for piece in place.pieces):
        yield job
        return
    rows = max(1, STRETCH // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        stop = min(start + rows, shape[0])
        yield replace(job, base=job.base.rows(start, stop), tuned=job.tuned.rows(start, stop))


def _is_wide(place: Place) -> bool:
    return len(place.shape) == 4 and place.shape[2:] != (1, 1)


def _extract(
    jobs: list[_Job], outside: list[_Job], settings: ExtractSettings, watch: Watch
) -> tuple[dict[str, Made], _Seen]:
    from trainer.tools.low_rank import a_core_each

    device = _device(settings.device)
    meter = watch.meter(say("Comparing layers"), sum(job.base.num_items for job in (*jobs, *outside)))
    made: dict[str, Made] = {}
    seen = _Seen()
    with Files() as files, a_core_each() as threads:
        layer = partial(_layer, settings=settings, device=device, files=files)
        with closing(ahead(layer, jobs, threads, threads)) as found:
            for job, result in found:
                if result is None:
                    seen.num_equal += 1
                else:
                    made[job.name] = result.made
                    seen.whole += result.whole
                    seen.kept += result.kept
                meter.advance(job.base.num_items)
        with closing(ahead(partial(_differs, settings=settings, files=files), outside, threads, threads)) as compared:
            for job, differs in compared:
                if differs:
                    seen.outside.append(job.name)
                meter.advance(job.base.num_items)
    return made, seen


def _device(name: str) -> Any:
    if name == "cpu":
        return "cpu"
    from trainer.device import choose_device

    return choose_device(name)


def _difference(job: _Job, least: float, files: Files) -> torch.Tensor | None:
    """What the training changed in a layer, float32 (out, n); None if nothing, or not more than `least`.

    Weights that are equal once both are in the shorter of their two dtypes have not been trained, only rounded.
    """
    import torch

    base, tuned = files.read(job.base), files.read(job.tuned)
    short = max((base, tuned), key=lambda tensor: torch.finfo(tensor.dtype).eps).dtype
    if base.dtype != tuned.dtype and torch.equal(base.to(short), tuned.to(short)):
        return None
    change = tuned.float().sub_(base if base.element_size() > 1 else base.float())
    low, high = change.aminmax()
    if not math.isfinite(float(low) + float(high)):
        raise BadInput(
            say("The layer {name} has values that are no numbers (NaN or infinite) in one of the models.", name=job.name),
            say("Take another version of that model."),
        )
    if max(-float(low), float(high)) <= least:
        return None
    return change


def _layer(job: _Job, settings: ExtractSettings, device: Any, files: Files) -> _Layer | None:
    """The LoRA's layer for what the training changed; None if nothing."""
    from trainer.tools.lora_out import Made
    from trainer.tools.low_rank import exact_svd, leading_svd, rank_by_rule

    change = _difference(job, settings.least_change, files)
    if change is None:
        return None
    matrix = change.to(device).flatten(1)
    svd = exact_svd(matrix) if settings.rule in _EXACT_RULES else leading_svd(matrix, job.rank)
    rank = rank_by_rule(svd.s, settings.rule, settings.amount, job.rank)
    up, down = (half.cpu() for half in svd.halves(rank))
    kept = float(svd.s[:rank].double().square().sum())
    return _Layer(Made(up, down, tuple(change.shape[1:])), float(matrix.norm()) ** 2, kept)


def _metadata(base: Checkpoint, tuned: Checkpoint, settings: ExtractSettings) -> dict[str, str]:
    """A LoRA's entries: what it is made for and what it is made of."""
    output = Path(settings.output)
    kept = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "ss_base_model_version": base_version_of(base.facts),
        "ss_v2": str(base.facts.family == "sd2"),
        "ss_sd_model_name": base.path.name,
    }
    if architecture := family_architecture(base.facts):
        kept["modelspec.architecture"] = f"{architecture}/lora"
    if base.facts.prediction:
        kept["modelspec.prediction_type"] = "v" if base.facts.prediction == "v_prediction" else "epsilon"
    return provenance.of_lora(
        [kept], output, "extract", {"Base model": base.path, "Trained model": tuned.path}, {},
        rule=settings.rule, amount=settings.amount or None, rank=settings.rank, conv_rank=settings.conv_rank or None,
        parts=settings.parts,
    )  # fmt: skip


def _notes(seen: _Seen, total: int) -> Iterator[Message]:
    if seen.num_equal:
        yield say(
            "{count} of {total} layers are equal in both models and were left out.", count=seen.num_equal, total=total
        )
    if seen.outside:
        yield say(
            "{count} other weights differ that a LoRA has no layer for, for example {name}; they are not in it.",
            count=len(seen.outside),
            name=seen.outside[0],
        )
