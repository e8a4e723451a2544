"""What can be known of a run before it starts: steps, the size of its file, free disk. Nothing here guesses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trainer.config.run import RunFile
from trainer.files import free_bytes
from trainer.models import hub
from trainer.models.layouts import weight_files
from trainer.models.safetensors_file import Header, NotSafetensors, read_header
from trainer.paths import default_runs_folder

_UNET = re.compile(
    r"(transformer_blocks\.\d+\.(attn[12]\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2))"
    r"|(attentions\.\d+|blocks?\.\d+\.\d+|middle_block\.1)\.proj_(in|out))\.weight$"
)
_TEXT = re.compile(r"(self_attn\.([qkv]|out)_proj|mlp\.fc[12])\.weight$")
_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
_HEADER_BYTES = 60_000  # names of tensors and metadata: about that for SD 1.5


@dataclass(frozen=True)
class Facts:
    """Figures for the strip; None where something needed for it is missing.

    Attributes:
        file_bytes: of one LoRA file.
        num_files: that will be written and kept, final one included (0: unknown without steps).
        free_bytes: on the disk of the output folder.
    """

    file_bytes: int | None
    num_files: int
    free_bytes: int | None


def gather(run: RunFile, total_steps: int | None, epochs: int | None) -> Facts:
    """Facts of a run whose paths are absolute. Reads headers and asks the disk: not on the window's thread."""
    folder = Path(run.output.folder) if run.output.folder else default_runs_folder()
    try:
        free: int | None = free_bytes(folder)
    except OSError:
        free = None
    return Facts(lora_bytes(run), num_files(run, total_steps, epochs), free)


def lora_bytes(run: RunFile) -> int | None:
    """The size of the LoRA's file from the shapes in the base model's header, None if they cannot be read."""
    if not run.model.path:
        return None
    shapes = _shapes(hub.local(run.model.path))
    numbers = 0
    if run.network.train in ("both", "unet"):
        numbers += _numbers(shapes, _UNET, run.network.rank)
    if run.network.train in ("both", "text_encoder"):
        numbers += _numbers(shapes, _TEXT, run.network.rank)
    return numbers * _BYTES.get(run.output.precision, 2) + _HEADER_BYTES if numbers else None


def _numbers(shapes: dict[str, tuple[int, ...]], pattern: re.Pattern[str], rank: int) -> int:
    """Trained numbers: rank × (inputs + outputs) for each layer."""
    layers = (shape for name, shape in shapes.items() if pattern.search(name) and len(shape) >= 2)
    return sum(rank * (shape[0] + shape[1]) for shape in layers)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for header in _headers(path):
        shapes |= {name: info.shape for name, info in header.tensors.items()}
    return shapes


def _headers(path: Path) -> list[Header]:
    parts = ("unet", "text_encoder")
    files = [file for part in parts for file in weight_files(path / part)] if path.is_dir() else [path]
    headers = []
    for file in files:
        try:
            headers.append(read_header(file))
        except (OSError, NotSafetensors):
            continue
    return headers


def num_files(run: RunFile, total_steps: int | None, epochs: int | None) -> int:
    """LoRA files that stay at the end: those of epochs and steps (the last n, if so set) and the final one."""
    if not total_steps or not epochs:
        return 0
    output = run.output
    saves = set()
    if every := output.save_every_epochs:
        saves |= {round(total_steps * epoch / epochs) for epoch in range(every, epochs, every)}
    if output.save_every_steps:
        saves |= set(range(output.save_every_steps, total_steps, output.save_every_steps))
    kept = len(saves) if not output.keep_last else min(len(saves), output.keep_last)
    return kept + 1
