"""Writes the trained weights for other programs, with a header that says how they were made."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer import metadata
from trainer.base_model import Sources
from trainer.config.run import RunFile
from trainer.device import DTYPES
from trainer.estimate import StepPlan
from trainer.export import BaseHash
from trainer.methods import Trained
from trainer.models.protocol import Components, Family

HASH_PATIENCE_S = 60.0  # for the base model's hash, when the final file is written


@dataclass(frozen=True)
class Export:
    """Called as `export(path, position)`: writes the file of the state after so many steps."""

    run: RunFile
    family: Family
    sources: Sources
    components: Components
    trained: Trained
    plan: StepPlan
    data: metadata.DatasetFacts
    hashes: Mapping[Path, BaseHash]
    started_at: float

    def __call__(self, path: Path, position: int) -> None:
        plan = self.plan
        epoch = sum(end <= position for end in plan.epoch_ends)
        progress = metadata.Progress(epoch, position, self.started_at, time.time())
        patience = HASH_PATIENCE_S if position >= plan.total_steps else 0.0
        base = metadata.base_facts(
            self.sources.model, self.sources.vae, self.components.prediction, self.components.zero_snr, self.hashes,
            patience,
        )  # fmt: skip
        header = metadata.header_metadata(self.run, self.family, base, self.data, plan, progress, path.stem)
        self.trained.export(path, header, DTYPES[self.run.output.precision])
