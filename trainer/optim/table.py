"""The optimisers and schedules that a run file may name: one row each, without torch (the window shows them).

`trainer.optim.build` makes the real thing from a row; a test compares `arguments` with the installed library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.config.fields import Choice


@dataclass(frozen=True)
class OptimizerRow:
    """An optimiser: where its class is, which free arguments it takes (with the defaults that we set), and advice."""

    name: str
    class_path: str
    help: str
    arguments: dict[str, Any]
    own_rate: bool = False  # finds its learning rate by itself: the value in the file is a factor of about 1
    relative_rate: bool = False  # with relative_step it takes no learning rate at all
    needs_cuda: bool = False

    @property
    def choice(self) -> Choice:
        return Choice(self.name, self.name, self.help)


OPTIMIZERS: dict[str, OptimizerRow] = {
    row.name: row
    for row in (
        OptimizerRow(
            "AdamW",
            "torch.optim.AdamW",
            "The steady default. Two numbers of memory for each trained one.",
            {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False},
        ),
        OptimizerRow(
            "AdamW8bit",
            "bitsandbytes.optim.AdamW8bit",
            "AdamW with its memory in 8 bits: a quarter of the size, nearly the same result.",
            {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "min_8bit_size": 4096},
        ),
        OptimizerRow(
            "Lion",
            "lion_pytorch.Lion",
            "One number of memory for each trained one. Wants a third to a tenth of AdamW's rate.",
            {"betas": (0.9, 0.99), "weight_decay": 0.0, "decoupled_weight_decay": False},
        ),
        OptimizerRow(
            "Adafactor",
            "transformers.optimization.Adafactor",
            "Very little memory. With relative_step it sets its own rate (schedule: adafactor).",
            {
                "eps": (1e-30, 1e-3),
                "clip_threshold": 1.0,
                "decay_rate": -0.8,
                "beta1": None,
                "weight_decay": 0.0,
                "scale_parameter": True,
                "relative_step": True,
                "warmup_init": False,
            },
            relative_rate=True,
        ),
        OptimizerRow(
            "Prodigy",
            "prodigyopt.Prodigy",
            "Finds its own rate while training: leave the learning rates at 1.",
            {
                "betas": (0.9, 0.999),
                "beta3": None,
                "eps": 1e-8,
                "weight_decay": 0.01,
                "decouple": True,
                "use_bias_correction": True,
                "safeguard_warmup": True,
                "d0": 1e-6,
                "d_coef": 1.0,
                "growth_rate": float("inf"),
                "slice_p": 1,
            },
            own_rate=True,
        ),
        OptimizerRow(
            "SGDNesterov",
            "torch.optim.SGD",
            "Plain descent with momentum. Needs a much higher rate; for experiments.",
            {"momentum": 0.9, "weight_decay": 0.0, "dampening": 0.0, "nesterov": True},
        ),
    )
}


@dataclass(frozen=True)
class ScheduleRow:
    """A schedule of the learning rate and which of the schedule's settings it uses."""

    name: str
    help: str
    warmup: bool = True
    cycles: bool = False
    power: bool = False

    @property
    def choice(self) -> Choice:
        return Choice(self.name, self.name, self.help)


SCHEDULES: dict[str, ScheduleRow] = {
    row.name: row
    for row in (
        ScheduleRow("constant", "The same rate from the first step to the last.", warmup=False),
        ScheduleRow("constant_with_warmup", "Rises to the full rate, then stays there."),
        ScheduleRow("linear", "Falls in a straight line to zero."),
        ScheduleRow("cosine", "Falls slowly, then quickly, then slowly to zero. The usual choice."),
        ScheduleRow(
            "cosine_with_restarts", "Cosine several times over; with one cycle it is plain cosine.", cycles=True
        ),
        ScheduleRow("polynomial", "Falls by a power: 1 is linear, more falls sooner.", power=True),
        ScheduleRow("adafactor", "Adafactor's own relative step sets the rate.", warmup=False),
    )
}
