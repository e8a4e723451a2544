"""Which device a run uses, in which precision and with which attention: a clear answer or a clear refusal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from trainer.errors import BadInput
from trainer.ipc import events
from trainer.messages import say
from trainer.models.protocol import Attention

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """The device of [speed] `device`: "auto", "cpu", "cuda", "cuda:1", or a graphics card by its name.

    Raises BadInput, naming the cards that there are.
    """
    if name == "cpu":
        return torch.device("cpu")
    cards = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if name == "auto":
        return torch.device("cuda:0" if cards else "cpu")
    numbered = {f"cuda:{number}": number for number in range(len(cards))} | ({"cuda": 0} if cards else {})
    matches = [number for number, card in enumerate(cards) if card.lower() == name.strip().lower()]
    number = numbered.get(name, matches[0] if matches else None)
    if number is None:
        what = say("There is no device {name} that PyTorch can use.", name=name)
        known = ", ".join(["auto", "cpu", *cards])
        raise BadInput(what, say("Set speed.device to one of: {known}. The launcher's doctor says more.", known=known))
    return torch.device("cuda", number)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of [speed] `precision` on a device. Raises BadInput where the device cannot do it."""
    if precision == "fp16" and device.type == "cpu":
        what = say("The run is set to fp16, and a CPU can not train in fp16.")
        raise BadInput(what, say("Set speed.precision to fp32, or train on a graphics card."))
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        what = say("The run is set to bf16, and {card} does not have it.", card=torch.cuda.get_device_name(device))
        raise BadInput(what, say("Set speed.precision to fp16."))
    return DTYPES[precision]


def precision_context(dtype: torch.dtype, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Makes autocast contexts for half precision, empty ones for fp32."""
    if dtype == torch.float32:
        return nullcontext
    return lambda: torch.autocast(device.type, dtype)


def usable_attention(kind: str, device: torch.device, dtype: torch.dtype) -> tuple[Attention, events.Warning_ | None]:
    """The attention to use: the one asked for where a call of it works on the device, else SDPA with a warning."""
    if kind != "xformers":
        return "sdpa", None
    try:
        from xformers.ops import memory_efficient_attention

        probe = torch.randn(1, 64, 2, 40, device=device, dtype=dtype, requires_grad=True)
        memory_efficient_attention(probe, probe, probe).sum().backward()
    except (ImportError, RuntimeError, NotImplementedError, ValueError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = say("xformers does not work here ({reason}); SDPA is used instead.", reason=reason)
        return "sdpa", events.Warning_(what, say("Set speed.attention to sdpa, which is as quick on today's PyTorch."))
    return "xformers", None


def describe_device(device: torch.device) -> str:
    """The device's name for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def memory_in_use(device: torch.device) -> Callable[[], int]:
    """Makes a function that says how many bytes are in use: of the card by this process, else of the process."""
    if device.type == "cuda":
        return lambda: torch.cuda.memory_reserved(device)
    import psutil

    process = psutil.Process()
    return lambda: process.memory_info().rss
