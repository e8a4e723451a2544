"""Reads the parts of a model tensor by tensor, in a thread, while the libraries that hold them are being imported.

A `PartPlan` says where each tensor of a part lies. Models are built without memory and get the tensors that were read:
no weight is ever held twice.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import BadInput, RunFailed
from trainer.messages import say
from trainer.models import configs
from trainer.models.keys import is_vae_attention
from trainer.models.opening import shown
from trainer.models.safetensors_file import ITEM_BYTES, TensorInfo
from trainer.models.tensor_file import read_tensor

if TYPE_CHECKING:
    import torch
    from torch import nn


# What a layout or a config of a stranger may lead to where it is taken at its word.
NOT_AS_IT_SHOULD_BE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError)


@dataclass(frozen=True)
class Place:
    """Where a tensor lies, and whether it lies there `turned` (transposed)."""

    path: Path
    info: TensorInfo
    turned: bool = False


@dataclass(frozen=True)
class PartPlan:
    """One part of a model.

    Attributes:
        part: "unet", "vae", …
        config: its library's.
        tensors: the places of all tensors by their names in the library's module.
        beside: what the file has for this part and the library has no place for, by the name in the file.
    """

    part: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Place]
    beside: Mapping[str, Place] = field(default_factory=dict)


def rows_of(info: TensorInfo, first: int, count: int) -> TensorInfo:
    """`count` rows of a tensor from `first` on, as a tensor of its own."""
    shape = (count, *info.shape[1:])
    if info.strides is None:
        row = info.num_bytes // info.shape[0]
        return replace(info, shape=shape, start=info.start + first * row, num_bytes=count * row)
    item = ITEM_BYTES[info.dtype]
    last = sum((size - 1) * step for size, step in zip(shape, info.strides, strict=True))
    return replace(info, shape=shape, start=info.start + first * info.strides[0] * item, num_bytes=(last + 1) * item)


def read_parts(
    plans: Mapping[str, PartPlan], dtypes: Mapping[str, torch.dtype], device: torch.device | str
) -> Mapping[str, Future[dict[str, torch.Tensor]]]:
    """Begin to read the parts in a thread; each future gives the tensors of one part, on `device` in the part's dtype."""
    pool = ThreadPoolExecutor(1, "read-model")
    futures = {part: pool.submit(_read_part, plan, dtypes[part], device) for part, plan in plans.items()}
    pool.shutdown(wait=False)
    return futures


def read_beside(plan: PartPlan) -> dict[str, torch.Tensor]:
    """The small tensors of `plan.beside` as they are. Raises BadInput."""
    try:
        return {name: _read_one(place) for name, place in plan.beside.items()}
    except (OSError, EOFError) as error:
        path = next(iter(plan.beside.values())).path
        raise BadInput(say("The model file {path} cannot be read: {reason}.", path=str(path), reason=str(error))) from error


def _read_one(place: Place) -> torch.Tensor:
    with place.path.open("rb", buffering=0) as handle:
        return read_tensor(handle, place.info)


def _read_part(plan: PartPlan, dtype: torch.dtype, device: torch.device | str) -> dict[str, torch.Tensor]:
    """The tensors of a part in file order: each is read into memory of its own, converted, moved, before the next."""
    tensors: dict[str, torch.Tensor] = {}
    for path in dict.fromkeys(place.path for place in plan.tensors.values()):
        rows = [(name, place) for name, place in plan.tensors.items() if place.path == path]
        with path.open("rb", buffering=0) as handle:
            for name, place in sorted(rows, key=lambda row: row[1].info.start):
                tensor = read_tensor(handle, place.info, dtype)
                if is_vae_attention(name) and tensor.dim() == 4 and tensor.shape[2:] == (1, 1):
                    tensor = tensor.reshape(tensor.shape[:2])
                tensors[name] = (tensor.t().contiguous() if place.turned and tensor.dim() == 2 else tensor).to(device)
    return tensors


def build(plan: PartPlan, make: Callable[[], nn.Module], reading: Future[dict[str, torch.Tensor]]) -> nn.Module:
    """A frozen module in eval mode, made by `make` without memory, that holds the tensors read.

    Raises BadInput if the file lacks tensors or has them in other sizes, RunFailed if there is not enough memory.
    """
    import torch

    _refuse_endless(plan)
    try:
        with torch.device("meta"):
            module = make()
    except Exception as error:  # a library that is given a stranger's config has errors of its own
        raise bad_config(plan, str(error)) from error
    tensors = _finished(reading, plan)
    _compare(plan, {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}, tensors)
    device = next(iter(tensors.values())).device
    module.load_state_dict(tensors, assign=True)
    tensors.clear()
    _fill_buffers(module, device)
    return module.requires_grad_(False).eval()


def _finished(reading: Future[dict[str, torch.Tensor]], plan: PartPlan) -> dict[str, torch.Tensor]:
    path = next(iter(plan.tensors.values())).path
    try:
        return reading.result()
    except EOFError as error:
        raise BadInput(say("The model file {path} became shorter while it was read.", path=str(path))) from error
    except OSError as error:
        text = say(
            "The model file {path} cannot be read: {reason}.", path=str(path), reason=error.strerror or str(error)
        )
        raise BadInput(text) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise RunFailed(
            say("There is not enough memory for the model {path}.", path=str(path)),
            say("Close other programs, or choose half precision for the base model."),
        ) from error


def _refuse_endless(plan: PartPlan) -> None:
    try:
        configs.refuse_endless(plan.config, len(plan.tensors))
    except configs.UnknownLayout as error:
        raise bad_config(plan, str(error)) from error


def bad_config(plan: PartPlan, reason: str) -> BadInput:
    path = next((place.path for place in plan.tensors.values()), None)
    return BadInput(
        say(
            "The config of the {part} of {path} does not describe a model: {reason}.",
            part=plan.part.replace("_", " "),
            path=str(path),
            reason=shown(" ".join(reason.split()), 200).rstrip("."),
        ),
        say("Download the model again."),
    )


def _compare(plan: PartPlan, wanted: Mapping[str, tuple[int, ...]], tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse a file that lacks tensors of the model, has some it has no place for, or has them in other sizes."""
    wrong = [name for name, shape in wanted.items() if name not in tensors or tuple(tensors[name].shape) != shape]
    wrong += [name for name in tensors if name not in wanted]
    if wrong:
        path = next(iter(plan.tensors.values())).path
        raise BadInput(
            say(
                "In {path}, {count} tensors of the {part} are missing, too many or of another size, for example {name}.",
                path=str(path),
                count=len(wrong),
                part=plan.part.replace("_", " "),
                name=wrong[0],
            ),
            say("Download the model again; if its sizes are unusual, it needs its config beside it."),
        )


def _fill_buffers(module: nn.Module, device: torch.device) -> None:
    """Give the buffers that no file holds their values: position numbers are the only ones these models have."""
    import torch

    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            assert name.endswith("position_ids"), f"{name} has no value in any file"
            owner = module.get_submodule(name.rpartition(".")[0])
            numbers = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
            setattr(owner, name.rpartition(".")[2], numbers)


def known_arguments(make: Callable[..., Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a config that a constructor takes: files of other library versions carry more."""
    names = inspect.signature(make).parameters
    return {key: value for key, value in config.items() if key in names and not key.startswith("_")}
