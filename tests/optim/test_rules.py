"""What the check says of an optimiser before anything heavy is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.config.rules import own_rate_is_one_for_all
from trainer.config.run import Optimizer, RunFile
from trainer.methods.lora import Settings


@pytest.mark.parametrize(
    ("optimizer", "train", "refused"),
    [
        ({"name": "Prodigy", "learning_rate": 1.0}, "both", True),  # the text encoder's own 5e-5 is still there
        ({"name": "Prodigy", "learning_rate": 1.0}, "unet", False),
        ({"name": "Prodigy", "learning_rate": 1.0, "text_encoder_rate": None}, "both", False),
        ({"name": "Prodigy", "learning_rate": 1.0, "text_encoder_rate": 0.0}, "both", False),
        ({"name": "Prodigy", "learning_rate": 1.0, "text_encoder_rate": None, "text_encoder_2_rate": 0.5}, "both", True),
        ({"name": "Prodigy", "learning_rate": 1.0, "text_encoder_rate": 0.4, "text_encoder_2_rate": 0.5}, "unet", False),
        ({"name": "Prodigy", "learning_rate": 1.0, "text_encoder_2_rate": 1.0}, "text_encoder", True),
        ({"name": "AdamW"}, "both", False),
    ],
)
def test_prodigy_has_one_rate(optimizer: dict[str, Any], train: str, refused: bool) -> None:
    run = RunFile(optimizer=Optimizer(**optimizer), network=Settings(train=train))
    assert bool(list(own_rate_is_one_for_all(run))) == refused
