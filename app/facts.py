"""What can be known of a run before it starts: steps, the size of its file, free disk. Nothing here guesses."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from trainer.config.run import RunFile
from trainer.files import free_bytes
from trainer.models import hub
from trainer.models.folder_files import weight_files
from trainer.models.header import inspect_file
from trainer.models.opening import NotWeights
from trainer.models.weights_file import read_header
from trainer.paths import default_runs_folder

_UNET = re.compile(
    r"(transformer_blocks\.\d+\.(attn[12]\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2))"
    r"|(attentions\.\d+|blocks?\.\d+\.\d+|middle_block\.1)\.proj_(in|out))\.weight$"
)
_CONVOLUTIONS = re.compile(  # and what else is in resnets and samplers: the LDM's names, diffusers' names
    r"(put_blocks\.\d+\.\d+|middle_block\.[02])\.(in_layers\.2|out_layers\.3|emb_layers\.1|skip_connection|op|conv)\.weight$"
    r"|resnets\.\d+\.(conv[12]|time_emb_proj|conv_shortcut)\.weight$|samplers\.0\.conv\.weight$"
)
_TEXT = re.compile(r"(self_attn\.([qkv]|out)_proj|mlp\.fc[12])\.weight$")
_OPEN_CLIP = re.compile(r"resblocks\.(\d+)\.(attn\.in_proj_weight|attn\.out_proj\.weight|mlp\.c_(fc|proj)\.weight)$")
_UNUSED_LAST = "cond_stage_model.model."  # SD 2.x in one file brings a last layer that nothing uses
_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
_HEADER_BYTES = 60_000  # names of tensors and metadata: about that for SD 1.5
Shapes = dict[str, tuple[int, ...]]


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
    except (OSError, ValueError):  # ValueError: a path with a zero byte in it
        free = None
    return Facts(lora_bytes(run), num_files(run, total_steps, epochs), free)


def lora_bytes(run: RunFile) -> int | None:
    """The size of the LoRA's file from the shapes in the base model's header, None if they cannot be read."""
    if not run.model.path:
        return None
    shapes, rank = _shapes(hub.local(run.model.path)), _rank(run)
    numbers = 0
    if run.network.train in ("both", "unet"):
        numbers += _numbers(shapes, _UNET, rank) + _wide_numbers(shapes, rank, run.network.conv_rank)
    if run.network.train in ("both", "text_encoder"):
        numbers += _numbers(shapes, _TEXT, rank) + _open_clip_numbers(shapes, rank)
    return numbers * _BYTES.get(run.output.precision, 2) + _HEADER_BYTES if numbers else None


def _rank(run: RunFile) -> int:
    """The rank set, or that of the LoRA which is gone on from."""
    network = run.network
    if network.network_weights and network.weights_rank == "file":
        adapter = inspect_file(network.network_weights).adapter
        if adapter is not None and adapter.ranks:
            return adapter.ranks[0]
    return network.rank


def _numbers(shapes: Shapes, pattern: re.Pattern[str], rank: int) -> int:
    """Trained numbers: rank × (inputs + outputs) for each layer."""
    layers = (shape for name, shape in shapes.items() if pattern.search(name) and len(shape) >= 2)
    return sum(rank * (shape[0] + shape[1]) for shape in layers)


def _wide_numbers(shapes: Shapes, rank: int, conv_rank: int) -> int:
    """The same of resnets and samplers; 3×3 convolutions have the convolutions' rank, the others the usual one."""
    if not conv_rank:
        return 0
    layers = [shape for name, shape in shapes.items() if _CONVOLUTIONS.search(name) and len(shape) >= 2]
    wide = [shape for shape in layers if math.prod(shape[2:]) > 1]
    plain = [shape for shape in layers if math.prod(shape[2:]) == 1]
    return sum(conv_rank * (shape[0] + math.prod(shape[1:])) for shape in wide) + sum(
        rank * (shape[0] + shape[1]) for shape in plain
    )


def _open_clip_numbers(shapes: Shapes, rank: int) -> int:
    """The same of OpenCLIP's layers, whose queries, keys and values lie in one tensor."""
    found = [(name, match) for name in shapes if (match := _OPEN_CLIP.search(name))]
    last = max((int(match[1]) for _, match in found), default=0)
    numbers = 0
    for name, match in found:
        if name.startswith(_UNUSED_LAST) and int(match[1]) == last:
            continue
        rows, columns = shapes[name][:2]
        numbers += rank * (rows + (3 if "in_proj" in name else 1) * columns)
    return numbers


def _shapes(path: Path) -> Shapes:
    shapes: Shapes = {}
    for part, file in _files(path):
        try:
            header = read_header(file, located=False)
        except (OSError, ValueError, NotWeights):
            continue
        shapes |= {f"{part}{name}": info.shape for name, info in header.tensors.items()}
    return shapes


def _files(path: Path) -> list[tuple[str, Path]]:
    """A model's files, each with what keeps the names of a folder's parts apart."""
    if not path.is_dir():
        return [("", path)]
    parts = ("unet", "text_encoder", "text_encoder_2")
    try:
        return [(f"{part}/", file) for part in parts for file in weight_files(path / part)]
    except (OSError, ValueError):
        return []


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
